/* SPDX-License-Identifier: MIT */
/* The descriptors that the pump polls in addition to libcurl's sockets. */
#include "engine/waitfds.h"

#include <stdlib.h>

void nymbl__waitfds_clear(nymbl_engine *engine)
{
    engine->waitfd_count = 0;
    engine->waitfds_incomplete = false;
}

void nymbl__waitfds_add(nymbl_engine *engine, int fd, short events)
{
    if (engine->waitfd_count == engine->waitfd_capacity) {
        unsigned capacity =
            engine->waitfd_count == 0 ? 64 : engine->waitfd_count * 2;
        struct curl_waitfd *more =
            realloc(engine->waitfds, capacity * sizeof(*more));

        if (more == NULL) {
            engine->waitfds_incomplete = true;
            return;
        }
        engine->waitfds = more;
        engine->waitfd_capacity = capacity;
    }
    engine->waitfds[engine->waitfd_count++] =
        (struct curl_waitfd){.fd = fd, .events = events};
}
