// image_work.h: one image operation from its JavaScript request to its JavaScript result.
// Knows: the operations of image/, Node-API. Does not know: queues, threads.
// Threads: parse_image_work() and to_outcome() on the JavaScript thread; the work itself on a worker.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <string>

#include "addon/js_payload.h"
#include "image/ops/context.h"
#include "image/ops/rebase.h"

namespace sluicebox::addon {

using ImageWork = std::function<std::unique_ptr<JsPayload>(image::OperationContext&)>;

// Throws a JavaScript TypeError for a request that the SDK would not have sent.
ImageWork parse_image_work(const std::string& op, const Napi::Object& request);
// Of a rebase: what it is asked for (of an image or of a box), and what came of it.
image::RebaseOptions rebase_options_of(const Napi::Object& request);
Napi::Object rebase_to_js(Napi::Env env, const image::RebaseResult& result);
// What a worker that could not even run the work leaves behind.
std::unique_ptr<JsPayload> error_payload(Error error);

}  // namespace sluicebox::addon
