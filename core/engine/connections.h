/* SPDX-License-Identifier: MIT */
/* What an engine has of libcurl's. */
#ifndef NYMBL_ENGINE_CONNECTIONS_H
#define NYMBL_ENGINE_CONNECTIONS_H

#include "engine/engine.h"
#include "nymbl.h"

#include <curl/curl.h>

/* Have a multi handle, in the place of the one that is there. */
nymbl_kind nymbl__connections_open(nymbl_engine *engine);
void nymbl__connections_close(nymbl_engine *engine);
/* End the connections to origins that no open client and no running transfer
 * uses. */
void nymbl__connections_close_unused(nymbl_engine *engine);
CURL *nymbl__engine_handle(nymbl_engine *engine);
void nymbl__engine_handle_return(nymbl_engine *engine, CURL *easy);

#endif
