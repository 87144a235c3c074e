/* SPDX-License-Identifier: MIT */
/* The descriptors that the pump polls in addition to libcurl's sockets. */
#ifndef NYMBL_ENGINE_WAITFDS_H
#define NYMBL_ENGINE_WAITFDS_H

#include "engine/engine.h"

/* Forget all descriptors. */
void nymbl__waitfds_clear(nymbl_engine *engine);
/* Add a descriptor. `events`: CURL_WAIT_POLLIN, CURL_WAIT_POLLOUT or both. If
 * memory runs out it is not added. Then the pump waits only for a moment, and
 * looks for the bytes of lines itself. */
void nymbl__waitfds_add(nymbl_engine *engine, int fd, short events);

#endif
