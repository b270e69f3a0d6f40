// open_image_work.h: an image that stays open, as JavaScript has it, and what is done with it.
// Knows: OpenImage, Node-API. Does not know: queues, threads.
// Threads: as image_work.h. JavaScript holds the image; what it forgets is closed when it is collected.
#pragma once

#include <string>

#include "addon/image_work.h"

namespace sluicebox::addon {

// 'open' and 'handle.*'.
bool is_open_image_work(const std::string& op);
// As parse_image_work(), for these.
ImageWork parse_open_image_work(const std::string& op, const Napi::Object& request);

}  // namespace sluicebox::addon
