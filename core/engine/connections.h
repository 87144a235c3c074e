/* SPDX-License-Identifier: MIT */
/* The engine's libcurl handles. */
#ifndef NYMBL_ENGINE_CONNECTIONS_H
#define NYMBL_ENGINE_CONNECTIONS_H

#include "engine/engine.h"
#include "nymbl.h"

#include <curl/curl.h>

/* Create a multi handle; it replaces the old one, if there is one. NYMBL_IO if
 * no descriptor is left. */
nymbl_kind nymbl__connections_open(nymbl_engine *engine);
void nymbl__connections_close(nymbl_engine *engine);
/* Close the connections to origins that no open client and no running transfer
 * uses. */
void nymbl__connections_close_unused(nymbl_engine *engine);
/* An easy handle, or NULL if there is no memory. */
CURL *nymbl__engine_handle(nymbl_engine *engine);
void nymbl__engine_handle_return(nymbl_engine *engine, CURL *easy);

#endif
