/* SPDX-License-Identifier: MIT */
/* The public functions of a line. */
#include "nymbl.h"

#include "base/error.h"
#include "base/text.h"
#include "engine/commands.h"
#include "engine/lines.h"
#include "engine/pump.h"

#include <string.h>
#include <sys/un.h>

#define CONNECT_SECONDS 10.0
#define IDLE_SECONDS 60.0

/* ---- opening ---- */

/* The name of an option whose value is invalid, or NULL. */
static const char *options_problem(const nymbl_line_options *options)
{
    const char *unix_path = options->unix_path;

    if ((options->host == NULL) == (unix_path == NULL))
        return "host";
    if (options->host != NULL && (options->port < 1 || options->port > 65535))
        return "port";
    if (unix_path != NULL &&
        (*unix_path == '\0' ||
         strlen(unix_path) >= sizeof(((struct sockaddr_un *)0)->sun_path)))
        return "unix_path";
    if (unix_path != NULL && options->tls)
        return "tls";
    if ((options->greeting == NULL) != (options->greeting_size == 0) ||
        options->greeting_size > NYMBL_LINE_MAX_BYTES)
        return "greeting";
    if (options->greeting_replies < 0 ||
        (options->greeting_replies > 0) != (options->greeting != NULL))
        return "greeting_replies";
    if (!(options->connect_timeout >= 0))
        return "connect_timeout";
    if (!(options->idle_timeout >= 0))
        return "idle_timeout";
    return NULL;
}

/* Build the URL by which libcurl connects. NYMBL_MISUSE if the host is not
 * valid. */
static nymbl_kind url_build(char **out, const nymbl_line_options *options)
{
    const char *host = options->host != NULL ? options->host : "localhost";
    bool is_ipv6 = strchr(host, ':') != NULL;
    nymbl__buffer url;
    char port[16];
    nymbl_kind kind;

    nymbl__buffer_init(&url, 1024);
    snprintf(port, sizeof(port), ":%d", options->host ? options->port : 1);
    kind = nymbl__buffer_puts(&url, is_ipv6 ? "https://[" : "https://");
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(&url, host);
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(&url, is_ipv6 ? "]" : "");
    if (kind == NYMBL_OK)
        kind = nymbl__buffer_puts(&url, port);
    if (kind == NYMBL_TOO_LARGE ||
        (kind == NYMBL_OK && (strchr(host, '/') != NULL ||
                              nymbl_url_problem(url.data, false) != NULL)))
        kind = NYMBL_MISUSE;
    if (kind < 0) {
        nymbl__buffer_free(&url);
        return kind;
    }
    if (!options->tls) /* "https" becomes "http" */
        memmove(url.data + 4, url.data + 5, url.size - 4);
    *out = nymbl__buffer_take(&url);
    return NYMBL_OK;
}

static nymbl_kind options_copy(nymbl_line *line,
                               const nymbl_line_options *options)
{
    nymbl__raw_connection *connection = &line->connection;
    nymbl_kind kind = url_build(&connection->url, options);

    if (kind == NYMBL_OK)
        kind =
            nymbl__text_copy(&connection->settings.ca_file, options->ca_file);
    if (kind == NYMBL_OK)
        kind = nymbl__text_copy(&connection->unix_path, options->unix_path);
    if (kind == NYMBL_OK && options->greeting_size > 0)
        kind = nymbl__buffer_append(&line->greeting, options->greeting,
                                    options->greeting_size);
    line->greeting_replies = options->greeting_replies;
    connection->settings.connect_timeout = options->connect_timeout > 0
                                               ? options->connect_timeout
                                               : CONNECT_SECONDS;
    line->idle_timeout =
        options->idle_timeout > 0 ? options->idle_timeout : IDLE_SECONDS;
    return kind;
}

nymbl_kind nymbl_line_new(nymbl_line **out, nymbl_engine *engine,
                          const nymbl_line_options *options, nymbl_error *err)
{
    const char *problem = options_problem(options);
    nymbl_line *line;
    nymbl_kind kind;

    *out = NULL;
    if (!nymbl_engine_in_this_process(engine) || engine->closed)
        problem = "engine";
    if (problem != NULL)
        return nymbl__error_set(err, NYMBL_MISUSE, problem);
    line = nymbl__line_new(engine);
    if (line == NULL)
        return nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
    kind = options_copy(line, options);
    if (kind < 0) {
        nymbl__line_release(line);
        return nymbl__error_set(err, kind,
                                kind == NYMBL_MISUSE ? "host" : NULL);
    }
    line->active_at = nymbl_engine_now(engine);
    nymbl__line_retain(line); /* the engine's reference, until the end */
    nymbl__engine_lock(engine);
    line->next = engine->lines;
    engine->lines = line;
    nymbl__engine_unlock(engine);
    nymbl__pump_wake(engine);
    *out = line;
    return NYMBL_OK;
}

/* ---- requests ---- */

bool nymbl_line_is_open(const nymbl_line *line)
{
    double now = nymbl_engine_now(line->engine);
    bool open;

    if (!nymbl_engine_in_this_process(line->engine))
        return false;
    nymbl__engine_lock(line->engine);
    open = nymbl__line_is_usable(line, now);
    nymbl__engine_unlock(line->engine);
    return open;
}

/* Whether the caller runs the pump, so that it may do its work at once. */
static bool caller_is_pump(const nymbl_engine *engine)
{
    return !nymbl__engine_is_threaded(engine) && !engine->pumping &&
           !engine->closed;
}

/* Add a request, and start its transfer, if it has one. */
static nymbl_kind request_add(nymbl_line *line, nymbl__line_request *request,
                              nymbl_error *err)
{
    nymbl_engine *engine = line->engine;
    double now = nymbl_engine_now(engine);
    const char *reason = NULL;

    nymbl__engine_lock(engine);
    if (!nymbl__line_is_usable(line, now))
        reason = nymbl__reason_reset;
    else if (!nymbl__line_add(line, request, now))
        reason = nymbl__reason_line_full;
    else if (request->transfer != NULL)
        nymbl__commands_add(request->transfer, NYMBL__COMMAND_START);
    nymbl__engine_unlock(engine);
    if (reason != NULL)
        return nymbl__error_set(
            err, reason == nymbl__reason_reset ? NYMBL_NETWORK : NYMBL_IO,
            reason);
    nymbl__pump_wake(engine);
    if (caller_is_pump(engine)) {
        nymbl__pump_commands(engine); /* the step may end the transfer */
        nymbl__lines_step_one(line);
    }
    return NYMBL_OK;
}

/* Create and add a request. Without `transfer` its reply is dropped. */
static nymbl_kind request_start(nymbl_transfer **transfer, nymbl_line *line,
                                const void *bytes, size_t size,
                                nymbl_error *err)
{
    nymbl__line_request *request;
    nymbl_kind kind;

    if (!nymbl_engine_in_this_process(line->engine))
        return nymbl__error_set(err, NYMBL_CANCELED, nymbl__reason_forked);
    if (bytes == NULL || size == 0)
        return nymbl__error_set(err, NYMBL_MISUSE, "bytes");
    if (size > NYMBL_LINE_MAX_BYTES)
        return nymbl__error_set(err, NYMBL_IO, nymbl__reason_line_full);
    request = nymbl__line_request_new(bytes, size);
    if (request == NULL)
        return nymbl__error_set(err, NYMBL_NO_MEMORY, NULL);
    kind = transfer == NULL ? NYMBL_OK
                            : nymbl__transfer_new_request(
                                  &request->transfer, line->engine, line, err);
    if (kind == NYMBL_OK && transfer != NULL)
        *transfer = request->transfer;
    if (kind == NYMBL_OK)
        kind = request_add(line, request, err);
    if (kind == NYMBL_OK)
        return NYMBL_OK;
    if (transfer != NULL && *transfer != NULL)
        nymbl__transfer_release(*transfer);
    if (transfer != NULL)
        *transfer = NULL;
    nymbl__line_request_free(request);
    return kind;
}

nymbl_kind nymbl_line_start(nymbl_transfer **out, nymbl_line *line,
                            const void *bytes, size_t size, nymbl_error *err)
{
    *out = NULL;
    return request_start(out, line, bytes, size, err);
}

nymbl_kind nymbl_line_send(nymbl_line *line, const void *bytes, size_t size,
                           nymbl_error *err)
{
    return request_start(NULL, line, bytes, size, err);
}

void nymbl_line_free(nymbl_line *line)
{
    nymbl_engine *engine;

    /* In a forked child, the connection belongs to the parent. */
    if (line == NULL || !nymbl_engine_in_this_process(line->engine))
        return;
    engine = line->engine;
    nymbl__engine_lock(engine);
    line->closing = true;
    nymbl__engine_unlock(engine);
    nymbl__pump_wake(engine);
    if (caller_is_pump(engine) && !line->ended)
        nymbl__lines_finish(line);
    nymbl__line_release(line);
}
