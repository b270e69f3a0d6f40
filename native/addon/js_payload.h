// js_payload.h: a payload that can become a JavaScript value, once, for the winner of its claim.
// Knows: Node-API, payloads. Threads: made on a worker, converted on the JavaScript thread.
#pragma once

#include <napi.h>

#include "event_queue/payload.h"

namespace sluicebox::addon {

class JsPayload : public event_queue::Payload {
 public:
  // {value} or {error}: see Outcome in lib/native.ts.
  virtual Napi::Value to_outcome(Napi::Env env) = 0;
};

}  // namespace sluicebox::addon
