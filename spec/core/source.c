/* SPDX-License-Identifier: MIT */
/* A source that pushes bytes between the steps. */
#include "source.h"

struct source source;

static void source_step(void)
{
    size_t taken, piece = source.size - source.at;

    if (piece > 7777)
        piece = 7777;
    if (piece > 0 && source.last >= 0 && source.last != NYMBL_DONE) {
        source.last = nymbl_body_write(source.body, source.data + source.at,
                                       piece, &taken);
        source.at += taken;
    }
    if (source.at == source.size && source.finish) {
        nymbl_body_finish(source.body);
        source.finish = false;
    }
}

void source_open(int64_t stated, const char *data, size_t size, bool finish)
{
    memset(&source, 0, sizeof(source));
    REQUIRE(nymbl_body_stream(&source.body, stated, NULL) == NYMBL_OK);
    source.data = data;
    source.size = size;
    source.finish = finish;
    world.step = source_step;
}

void source_ready(void)
{
    for (int i = 0; i < 10000 && !nymbl_body_is_ready(source.body); i++)
        source_step();
    REQUIRE(nymbl_body_is_ready(source.body));
}

void source_close(void)
{
    nymbl_body_free(source.body);
    world.step = NULL;
}
