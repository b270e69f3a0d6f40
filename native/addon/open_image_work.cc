#include "addon/open_image_work.h"

#include <cstring>
#include <utility>
#include <vector>

#include "addon/values.h"
#include "image/ops/open_image.h"

namespace sluicebox::addon {

namespace {

using image::OpenImage;
using Shared = std::shared_ptr<OpenImage>;

// So that nothing else passes for one.
constexpr napi_type_tag kImageTag{.lower = 0x9c1f5d0be3a74c21, .upper = 0x8f60d2a7b35e4419};

class OutcomePayload : public JsPayload {
 public:
  explicit OutcomePayload(Status status) : status_(std::move(status)) {}

  Napi::Value to_outcome(Napi::Env env) override {
    Napi::Object outcome = Napi::Object::New(env);
    if (status_.ok())
      outcome.Set("value", value(env));
    else
      outcome.Set("error", from_error(env, status_.error()));
    return outcome;
  }

 private:
  virtual Napi::Value value(Napi::Env env) { return env.Undefined(); }

  Status status_;
};

class BytesPayload final : public OutcomePayload {
 public:
  BytesPayload(Status status, std::vector<std::byte> bytes)
      : OutcomePayload(std::move(status)), bytes_(std::move(bytes)) {}

 private:
  Napi::Value value(Napi::Env env) override { return Napi::Buffer<std::byte>::Copy(env, bytes_.data(), bytes_.size()); }

  std::vector<std::byte> bytes_;
};

// Nobody's: the image is closed with it.
class ImagePayload final : public OutcomePayload {
 public:
  explicit ImagePayload(Result<Shared> opened)
      : OutcomePayload(opened.ok() ? ok_status() : Status(opened.error())),
        image_(opened.ok() ? std::move(opened).value() : nullptr) {}

 private:
  Napi::Value value(Napi::Env env) override {
    const auto free = [](Napi::Env, Shared* image) { std::default_delete<Shared>()(image); };
    auto kept = std::make_unique<Shared>(image_);
    auto external = Napi::External<Shared>::New(env, kept.get(), free);
    [[maybe_unused]] Shared* taken = kept.release();
    external.TypeTag(&kImageTag);
    Napi::Object object = Napi::Object::New(env);
    object.Set("image", external);
    object.Set("format", image::format_name(image_->format()));
    object.Set("size", Napi::Number::New(env, static_cast<double>(image_->size())));
    object.Set("readonly", Napi::Boolean::New(env, image_->readonly()));
    const auto release = [image = image_](const Napi::CallbackInfo&) {
      [[maybe_unused]] const Status ignored = image->close();
    };
    object.Set("release", Napi::Function::New(env, release, "release"));
    return object;
  }

  Shared image_;
};

Shared image_of(const Napi::Object& request) {
  const Napi::Value value = request.Get("image");
  if (!value.IsExternal() || !value.As<Napi::External<Shared>>().CheckTypeTag(&kImageTag))
    throw Napi::TypeError::New(request.Env(), "image: expected an open image");
  return *value.As<Napi::External<Shared>>().Data();
}

ImageWork parse_open(const Napi::Object& request) {
  image::OpenImageOptions options{.readonly = flag_of(request, "readonly")};
  if (!request.Get("format").IsUndefined()) options.format = image::format_from_name(text_of(request, "format"));
  return [path = text_of(request, "path"), options](image::OperationContext& context) {
    auto opened = OpenImage::open(path, options, context);
    if (opened.ok() && !context.cancel.try_commit()) {
      opened = Error(ErrorCode::kCancelled, "the image was not opened: cancelled");
    }
    return std::make_unique<ImagePayload>(std::move(opened));
  };
}

ImageWork parse_read(const Napi::Object& request) {
  return [image = image_of(request), offset = whole_of(request, "offset"),
          length = whole_of(request, "length")](image::OperationContext&) {
    std::vector<std::byte> bytes(length);
    Status status = image->read(offset, bytes);
    return std::make_unique<BytesPayload>(std::move(status), std::move(bytes));
  };
}

// A copy: a worker may not look into JavaScript's memory.
ImageWork parse_write(const Napi::Object& request) {
  const Napi::Value data = request.Get("data");
  if (!data.IsTypedArray() || data.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
    throw Napi::TypeError::New(request.Env(), "data: expected a Uint8Array");
  const auto array = data.As<Napi::Uint8Array>();
  auto bytes = std::make_shared<std::vector<std::byte>>(array.ByteLength());
  if (!bytes->empty()) std::memcpy(bytes->data(), array.Data(), bytes->size());
  return [image = image_of(request), offset = whole_of(request, "offset"), bytes](image::OperationContext&) {
    return std::make_unique<OutcomePayload>(image->write(offset, *bytes));
  };
}

ImageWork parse_zero(const Napi::Object& request) {
  return [image = image_of(request), offset = whole_of(request, "offset"), length = whole_of(request, "length")](
             image::OperationContext&) { return std::make_unique<OutcomePayload>(image->zero(offset, length)); };
}

}  // namespace

bool is_open_image_work(const std::string& op) { return op == "open" || op.starts_with("handle."); }

ImageWork parse_open_image_work(const std::string& op, const Napi::Object& request) {
  if (op == "open") return parse_open(request);
  if (op == "handle.read") return parse_read(request);
  if (op == "handle.write") return parse_write(request);
  if (op == "handle.zero") return parse_zero(request);
  if (op == "handle.flush") {
    return [image = image_of(request)](image::OperationContext&) {
      return std::make_unique<OutcomePayload>(image->flush());
    };
  }
  if (op == "handle.close") {
    return [image = image_of(request)](image::OperationContext&) {
      return std::make_unique<OutcomePayload>(image->close());
    };
  }
  throw Napi::TypeError::New(request.Env(), "op: there is no operation '" + op + "'");
}

}  // namespace sluicebox::addon
