/* SPDX-License-Identifier: MIT */
/* The queue of commands for the pump. A transfer has one entry, whose flags
 * collect its commands. */
#include "engine/commands.h"

void nymbl__commands_add(nymbl_transfer *transfer, unsigned command)
{
    nymbl_engine *engine = transfer->engine;

    if (transfer->port.commands == 0) {
        transfer->references++;
        if (engine->commands_last != NULL)
            engine->commands_last->next_command = transfer;
        else
            engine->commands = transfer;
        engine->commands_last = transfer;
    }
    transfer->port.commands |= command;
}

nymbl_transfer *nymbl__commands_take(nymbl_engine *engine, unsigned *commands,
                                     nymbl_client **closing)
{
    nymbl_transfer *transfer;

    *closing = NULL;
    nymbl__engine_lock(engine);
    transfer = engine->commands;
    if (transfer != NULL) {
        engine->commands = transfer->next_command;
        if (engine->commands == NULL)
            engine->commands_last = NULL;
        transfer->next_command = NULL;
        *commands = transfer->port.commands;
        transfer->port.commands = 0;
    } else if (engine->closing != NULL) {
        *closing = engine->closing;
        engine->closing = engine->closing->next_closing;
    }
    nymbl__engine_unlock(engine);
    return transfer;
}
