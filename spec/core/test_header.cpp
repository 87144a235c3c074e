/* SPDX-License-Identifier: MIT */
/* nymbl.h is valid C++, too. */
#include "nymbl.h"
#include "nymbl.h"

int used();

int used()
{
    nymbl_client_options options = {};
    nymbl_client *client = nullptr;
    nymbl_error err;

    options.base_url = "https://a.b";
    options.api_key = "k";
    return nymbl_client_new(&client, &options, &err) < 0;
}
