// main.cc: doctest's main, in a file of its own because it is the slow one to compile.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
