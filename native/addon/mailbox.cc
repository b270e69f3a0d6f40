#include "addon/mailbox.h"

#include "addon/values.h"

namespace sluicebox::addon {

void Mailbox::put(News news, event_queue::RecordKind kind, std::uint32_t channel) {
  std::shared_ptr<event_queue::Source> source;
  {
    MutexLock lock(mutex_);
    if (source_ == nullptr) return;
    news_.push_back(std::move(news));
    source = source_;
  }
  source->post(channel, {.kind = kind});
}

void Mailbox::shut() {
  std::shared_ptr<event_queue::Source> source;
  MutexLock lock(mutex_);
  source.swap(source_);
  news_.clear();
}

News answer_news(std::uint32_t request, std::function<Napi::Value(Napi::Env)> value) {
  return [request, value = std::move(value)](Napi::Object& news) {
    news.Set("kind", "answer");
    news.Set("request", Napi::Number::New(news.Env(), request));
    news.Set("value", value(news.Env()));
  };
}

News error_news(std::uint32_t request, Error error) {
  return [request, error = std::move(error)](Napi::Object& news) {
    news.Set("kind", "answer");
    news.Set("request", Napi::Number::New(news.Env(), request));
    news.Set("error", from_error(news.Env(), error));
  };
}

}  // namespace sluicebox::addon
