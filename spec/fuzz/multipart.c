/* SPDX-License-Identifier: MIT */
/* The body of an upload, as the server receives it: parsed back strictly (RFC
 * 7578, RFC 2046), it has the fields and the bytes of the caller, and nothing
 * else. The input is a byte of flags; file name, media type, document type and
 * description, each up to a line feed; and the document. */
#include "fuzz.h"
#include "response.h"

#include <strings.h>

struct settings settings;
const char *problem;

static unsigned sent, refused, quoted, without_fields;
static const char response[] =
    "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}";

void broken(const char *what)
{
    problem = what;
}

void need(bool good, const char *what)
{
    require(good, what);
}

/* What is left of the body. */
typedef struct reader {
    const char *at, *end;
} reader;

static void expect(reader *in, const char *text)
{
    size_t length = strlen(text);

    require((size_t)(in->end - in->at) >= length &&
                memcmp(in->at, text, length) == 0,
            text);
    in->at += length;
}

/* A quoted-string with this content (RFC 2045: a backslash quotes). */
static void expect_quoted(reader *in, const char *text)
{
    expect(in, "\"");
    for (; *text != '\0'; text++) {
        require(in->at < in->end, "end of a quoted string");
        if (*text == '"' || *text == '\\') {
            require(*in->at++ == '\\', "quote");
            quoted++;
        }
        require(in->at < in->end && *in->at++ == *text, "quoted text");
    }
    expect(in, "\"");
}

/* The bytes up to the next delimiter, which they do not contain. */
static void expect_content(reader *in, const char *delimiter, const void *data,
                           size_t size)
{
    const char *end = memmem(in->at, (size_t)(in->end - in->at), delimiter,
                             strlen(delimiter));

    require(end != NULL, "delimiter");
    require((size_t)(end - in->at) == size && memcmp(in->at, data, size) == 0,
            "content of a part");
    in->at = end + strlen(delimiter);
}

static void expect_text(reader *in, const char *delimiter, const char *name,
                        const char *value)
{
    if (value == NULL)
        return;
    expect(in, "\r\nContent-Disposition: form-data; name=");
    expect_quoted(in, name);
    expect(in, "\r\n\r\n");
    expect_content(in, delimiter, value, strlen(value));
}

static void check(const request *request, const nymbl_upload_options *options,
                  const uint8_t *data, size_t size)
{
    static const char field[] = "\r\nContent-Type: multipart/form-data; "
                                "boundary=";
    char delimiter[128];
    const char *boundary = strstr(request->head.data, field);
    reader in = {request->body.data, request->body.data + request->body.size};
    size_t length;

    require(boundary != NULL, "Content-Type");
    boundary += strlen(field);
    length = strspn(boundary, "-0123456789abcdefghijklmnopqrstuvwxyz"
                              "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    require(length > 0 && length <= 70 && boundary[length] == '\r', "boundary");
    snprintf(delimiter, sizeof(delimiter), "\r\n--%.*s", (int)length, boundary);
    expect(&in, delimiter + 2);
    expect(&in, "\r\nContent-Disposition: form-data; name=\"file\"; filename=");
    expect_quoted(&in, options->file_name);
    expect(&in, "\r\nContent-Type: ");
    expect(&in, options->content_type);
    expect(&in, "\r\n\r\n");
    expect_content(&in, delimiter, data, size);
    expect_text(&in, delimiter, "document_type", options->document_type);
    expect_text(&in, delimiter, "description", options->description);
    expect(&in, "--\r\n");
    require(in.at == in.end, "bytes after the end");
}

static nymbl_body *body_make(unsigned flags, const uint8_t *data, size_t size)
{
    nymbl_body *body = NULL;
    char path[128];
    size_t taken;

    switch (flags & 3) {
    case 0:
        require(nymbl_body_from_bytes(&body, data, size, NULL) == NYMBL_OK,
                "bytes");
        break;
    case 1:
        path_make(path, sizeof(path), dir, "document");
        file_write(path, data, size);
        require(nymbl_body_from_path(&body, path, NULL) == NYMBL_OK, "path");
        break;
    default:
        require(nymbl_body_stream(&body, flags & 1 ? (int64_t)size : -1,
                                  NULL) == NYMBL_OK,
                "stream");
        require(nymbl_body_write(body, data, size, &taken) == NYMBL_OK &&
                    taken == size,
                "window");
        nymbl_body_finish(body);
    }
    return body;
}

static void run(unsigned flags, const nymbl_upload_options *options,
                const uint8_t *data, size_t size)
{
    nymbl_body *body;
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {0};
    nymbl_kind kind;

    server_begin((const uint8_t *)response, sizeof(response) - 1);
    world_open();
    body = body_make(flags, data, size);
    kind = nymbl_upload_start(&transfer, engine, client, "tok", "7", body,
                              options, &err);
    if (kind == NYMBL_OK) {
        for (int i = 0; i < 5000; i++) {
            kind = nymbl_transfer_result(transfer, &err);
            if (kind != NYMBL_AGAIN)
                break;
            nymbl_engine_pump(engine, 0);
            if (!server_step())
                server_unstick();
        }
        require(kind == NYMBL_OK, nymbl_kind_name(kind));
        require(server.request_count == 1 && server.requests[0].complete &&
                    server.requests[0].wrong == NULL,
                "one request");
        check(&server.requests[0], options, data, size);
        sent++;
        without_fields += options->document_type == NULL;
    } else {
        require(kind == NYMBL_MISUSE, "kind");
        require(strchr(options->file_name, '\r') != NULL ||
                    strchr(options->content_type, '\r') != NULL,
                "refused for nothing");
        require(server.request_count == 0, "sent, but refused");
        refused++;
    }
    nymbl_transfer_free(transfer);
    nymbl_body_free(body);
    server_reset();
    world_close();
    folder_empty();
    require(nymbl_object_count() == 0, "objects are alive");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    char *fields[4];
    unsigned flags;

    if (size == 0)
        return 0;
    if (!ready)
        target_open();
    ready = true;
    flags = *data++;
    size--;
    for (int i = 0; i < 4; i++)
        fields[i] = field_cut(&data, &size, '\n');
    if (*fields[0] != '\0' && *fields[1] != '\0')
        run(flags,
            &(nymbl_upload_options){
                .file_name = fields[0],
                .content_type = fields[1],
                .document_type = flags & 4 ? NULL : fields[2],
                .description = flags & 8 ? NULL : fields[3],
                .is_rewindable = true,
            },
            data, size);
    for (int i = 0; i < 4; i++)
        free(fields[i]);
    return 0;
}

bool fuzz_report(void)
{
    printf("%u sent (%u without a document type), %u refused; %u quoted "
           "characters\n",
           sent, without_fields, refused, quoted);
    return sent > 0 && without_fields > 0 && refused > 0 && quoted > 0;
}
