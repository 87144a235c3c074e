/* SPDX-License-Identifier: MIT */
/* The caller's functions for notify sockets. */
#include "nymbl.h"

#include "base/error.h"
#include "base/fd.h"
#include "base/stream_socket.h"
#include "engine/notify.h"
#include "engine/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool pair_open(int ends[2])
{
    if (socketpair(AF_UNIX, NYMBL__STREAM_SOCKET, 0, ends) != 0)
        return false;
    ends[0] = nymbl__fd_avoid_stdio(ends[0]);
    ends[1] = nymbl__fd_avoid_stdio(ends[1]);
    if (ends[0] >= 0 && ends[1] >= 0)
        return true;
    for (int i = 0; i < 2; i++) {
        if (ends[i] >= 0)
            nymbl__fd_close(ends[i]);
    }
    return false;
}

nymbl_kind nymbl_transfer_notify_fd(nymbl_transfer *transfer, int *out,
                                    nymbl_error *err)
{
    nymbl_engine *engine = transfer->engine;
    nymbl_kind kind = NYMBL_DONE;
    int ends[2];

    *out = -1;
    if (!nymbl_engine_in_this_process(engine))
        return nymbl__error_set(err, NYMBL_CANCELED, nymbl__reason_forked);
    if (!pair_open(ends))
        return nymbl__error_set(err, NYMBL_IO, nymbl_reason_from_errno(errno));
    nymbl__stream_socket_set_flags(ends[0]);
    nymbl__stream_socket_set_flags(ends[1]);
    nymbl__engine_lock(engine);
    if (!transfer->port.ended && transfer->port.notify_fd >= 0 &&
        transfer->port.notify_fd_released) {
        kind = NYMBL_IO; /* the pump has not closed the released one yet */
    } else if (!transfer->port.ended && transfer->port.notify_fd < 0) {
        kind = NYMBL_OK;
        transfer->port.notify_fd = ends[0];
        transfer->port.notify_token[0] = '\0'; /* a peer is refused now */
        if (transfer->port.notified)
            nymbl__port_notify(&transfer->port);
    }
    nymbl__engine_unlock(engine);
    if (kind != NYMBL_OK) {
        close(ends[0]);
        close(ends[1]);
        return kind < 0
                   ? nymbl__error_set(err, kind, nymbl__reason_notify_fd_busy)
                   : kind;
    }
    nymbl__pump_wake(engine);
    *out = ends[1];
    return kind;
}

void nymbl_transfer_notify_fd_release(nymbl_transfer *transfer, int fd)
{
    nymbl_engine *engine = transfer->engine;

    if (nymbl_engine_in_this_process(engine)) {
        nymbl__engine_lock(engine);
        transfer->port.notify_fd_released = transfer->port.notify_fd >= 0;
        nymbl__engine_unlock(engine);
    }
    close(fd); /* the pump sees this and closes its end */
}

/* Generate random hexadecimal digits. */
static bool token_generate(char token[NYMBL__NOTIFY_TOKEN])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[NYMBL__NOTIFY_TOKEN / 2];
    int fd = nymbl__fd_avoid_stdio(open("/dev/urandom", O_RDONLY | O_CLOEXEC));
    bool good = fd >= 0 && read(fd, bytes, sizeof(bytes)) == sizeof(bytes);

    if (fd >= 0)
        close(fd);
    for (size_t i = 0; good && i < sizeof(bytes); i++) {
        token[2 * i] = digits[bytes[i] >> 4];
        token[2 * i + 1] = digits[bytes[i] & 15];
    }
    return good;
}

nymbl_kind nymbl_transfer_notify_socket(nymbl_transfer *transfer,
                                        nymbl_notify_socket *out,
                                        nymbl_error *err)
{
    nymbl_engine *engine = transfer->engine;
    char token[NYMBL__NOTIFY_TOKEN];
    nymbl_kind kind = NYMBL_DONE;

    if (!nymbl_engine_in_this_process(engine))
        return nymbl__error_set(err, NYMBL_CANCELED, nymbl__reason_forked);
    kind = nymbl__notify_listen(engine, err);
    if (kind < 0)
        return kind;
    if (kind == NYMBL_OK)
        nymbl__pump_wake(engine); /* the pump must poll the new listener */
    kind = NYMBL_DONE;
    if (!token_generate(token))
        return nymbl__error_set(err, NYMBL_IO, nymbl__reason_entropy);
    nymbl__engine_lock(engine);
    if (!transfer->port.ended && transfer->port.notify_fd < 0) {
        kind = NYMBL_OK;
        memcpy(transfer->port.notify_token, token, sizeof(token));
    }
    nymbl__engine_unlock(engine);
    if (kind == NYMBL_DONE)
        return kind;
    nymbl__notify_path(out->path, engine);
    memcpy(out->token, token, sizeof(token));
    out->token[sizeof(token)] = '\0';
    return NYMBL_OK;
}
