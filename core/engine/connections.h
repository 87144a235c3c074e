/* SPDX-License-Identifier: MIT */
/* The engine's libcurl handles. */
#ifndef NYMBL_ENGINE_CONNECTIONS_H
#define NYMBL_ENGINE_CONNECTIONS_H

#include "engine/engine.h"
#include "nymbl.h"

#include <curl/curl.h>

/* Create a multi handle and replace the old one by it. Returns NYMBL_OK,
 * NYMBL_NO_MEMORY, or NYMBL_IO if no descriptor is left. */
nymbl_kind nymbl__connections_open(nymbl_engine *engine);
void nymbl__connections_close(nymbl_engine *engine);
/* Close the connections to origins that no open client and no running transfer
 * uses. */
void nymbl__connections_close_unused(nymbl_engine *engine);
/* Get an easy handle, a new or a used one. NULL if memory runs out. */
CURL *nymbl__connections_get_handle(nymbl_engine *engine);
void nymbl__connections_return_handle(nymbl_engine *engine, CURL *easy);

#endif
