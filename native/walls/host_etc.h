// host_etc.h: what a box with the host's root sees of the host's /etc. What is not named here is not there.
// Knows: names. Settings that programs need to run, never what tells of users, machines, networks or secrets.
#pragma once

namespace sluicebox::walls {

// Copied into the box's own /etc where the host has them: small files, and links as they are.
inline constexpr const char* kEtcFiles[] = {
    "bash.bashrc", "debian_version", "gai.conf",  "host.conf", "inputrc",    "ld.so.cache",
    "ld.so.conf",  "locale.alias",   "localtime", "magic",     "mime.types", "nsswitch.conf",
    "os-release",  "profile",        "protocols", "services",  "shells",     "timezone",
};

// Shown read-only.
inline constexpr const char* kEtcDirectories[] = {
    "alternatives",           "ca-certificates", "fonts",     "ld.so.conf.d", "perl",
    "pki/ca-trust/extracted", "pki/tls/certs",   "ssl/certs", "terminfo",
};

// Written anew.
struct EtcText {
  const char* name;
  const char* text;
};
inline constexpr EtcText kEtcTexts[] = {
    {"passwd",
     "root:x:0:0:root:/root:/bin/sh\n"
     "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
     "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"},
    {"group",
     "root:x:0:\n"
     "daemon:x:1:\n"
     "tty:x:5:\n"
     "nogroup:x:65534:\n"},
    {"hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"},
    {"resolv.conf", ""},
};

}  // namespace sluicebox::walls
