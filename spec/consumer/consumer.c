/* SPDX-License-Identifier: MIT */
/* Documents of a patient, by the C library alone:
 *
 *   consumer upload PATIENT FILE
 *   consumer list PATIENT
 *   consumer get PATIENT DOCUMENT
 *   consumer download PATIENT DOCUMENT FILE
 *   consumer delete PATIENT DOCUMENT
 *
 * Prints the service's JSON, if the call returns any. The settings come from
 * the environment: NYMBL_BASE_URL, NYMBL_API_KEY, NYMBL_TOKEN_URL,
 * NYMBL_CLIENT_ID, NYMBL_CLIENT_SECRET, NYMBL_SCOPE, and NYMBL_CA_FILE if the
 * service's certificate is not signed by an authority that the system trusts.
 */
#include <nymbl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What every call needs. */
struct session {
    nymbl_engine *engine;
    nymbl_client *client;
    nymbl_token token;
};

/* Run a transfer until it ends. */
static nymbl_kind transfer_finish(nymbl_transfer *transfer, nymbl_error *err)
{
    nymbl_kind kind = nymbl_transfer_result(transfer, err);

    while (kind == NYMBL_AGAIN) {
        nymbl_transfer_wait(transfer, 60);
        kind = nymbl_transfer_result(transfer, err);
    }
    return kind;
}

static nymbl_kind session_open(struct session *session, nymbl_error *err)
{
    nymbl_client_options options = {
        .base_url = getenv("NYMBL_BASE_URL"),
        .api_key = getenv("NYMBL_API_KEY"),
        .token_url = getenv("NYMBL_TOKEN_URL"),
        .client_id = getenv("NYMBL_CLIENT_ID"),
        .client_secret = getenv("NYMBL_CLIENT_SECRET"),
        .scope = getenv("NYMBL_SCOPE"),
        .ca_file = getenv("NYMBL_CA_FILE"),
    };
    nymbl_transfer *transfer = NULL;
    const char *body;
    size_t size;
    nymbl_kind kind;

    kind = nymbl_engine_new(&session->engine, NULL, err);
    if (kind == NYMBL_OK)
        kind = nymbl_client_new(&session->client, &options, err);
    if (kind == NYMBL_OK)
        kind =
            nymbl_token_start(&transfer, session->engine, session->client, err);
    if (kind == NYMBL_OK)
        kind = transfer_finish(transfer, err);
    if (kind == NYMBL_OK) {
        body = nymbl_transfer_body(transfer, &size);
        kind = nymbl_token_read(&session->token, body, size, err);
    }
    nymbl_transfer_free(transfer);
    return kind;
}

static void session_close(struct session *session)
{
    nymbl_token_wipe(&session->token);
    nymbl_client_free(session->client);
    nymbl_engine_free(session->engine);
}

static nymbl_kind upload_start(nymbl_transfer **out, struct session *session,
                               const char *patient, const char *path,
                               nymbl_error *err)
{
    const char *name = strrchr(path, '/');
    nymbl_upload_options options = {
        .file_name = name != NULL ? name + 1 : path,
        .document_type = "Referral",
    };
    nymbl_body *body;
    nymbl_kind kind = nymbl_body_from_path(&body, path, err);

    if (kind != NYMBL_OK)
        return kind;
    options.content_type = nymbl_body_type(body);
    if (options.content_type == NULL || *options.content_type == '\0') {
        err->kind = kind =
            NYMBL_UNSUPPORTED_TYPE; /* the service would refuse */
        err->reason = "signature";
    } else {
        kind = nymbl_upload_start(out, session->engine, session->client,
                                  session->token.value, patient, body, &options,
                                  err);
    }
    nymbl_body_free(body); /* the transfer keeps it */
    return kind;
}

static nymbl_kind call_start(nymbl_transfer **out, struct session *session,
                             int argc, char **argv, nymbl_error *err)
{
    nymbl_engine *engine = session->engine;
    nymbl_client *client = session->client;
    const char *token = session->token.value;
    const char *call = argv[1];

    if (argc == 4 && strcmp(call, "upload") == 0)
        return upload_start(out, session, argv[2], argv[3], err);
    if (argc == 3 && strcmp(call, "list") == 0) {
        nymbl_list_options options = {.orderby = "file_name", .top = 100};

        return nymbl_list_start(out, engine, client, token, argv[2], &options,
                                err);
    }
    if (argc == 4 && strcmp(call, "get") == 0)
        return nymbl_get_start(out, engine, client, token, argv[2], argv[3],
                               err);
    if (argc == 5 && strcmp(call, "download") == 0) {
        nymbl_download_options options = {.path = argv[4]};

        return nymbl_download_start(out, engine, client, token, argv[2],
                                    argv[3], &options, err);
    }
    if (argc == 4 && strcmp(call, "delete") == 0)
        return nymbl_delete_start(out, engine, client, token, argv[2], argv[3],
                                  err);
    err->kind = NYMBL_MISUSE;
    err->reason = "usage";
    return NYMBL_MISUSE;
}

int main(int argc, char **argv)
{
    struct session session = {NULL, NULL, {"", 0}};
    nymbl_transfer *transfer = NULL;
    nymbl_error err = {NYMBL_OK};
    const char *problem = nymbl_tls_problem(), *body;
    size_t size = 0;
    nymbl_kind kind;

    if (problem != NULL) {
        fprintf(stderr, "%s\n", problem);
        return 1;
    }
    kind = session_open(&session, &err);
    if (kind == NYMBL_OK)
        kind = call_start(&transfer, &session, argc, argv, &err);
    if (kind == NYMBL_OK)
        kind = transfer_finish(transfer, &err);
    if (kind == NYMBL_OK) {
        body = nymbl_transfer_body(transfer, &size);
        if (body != NULL)
            fwrite(body, 1, size, stdout);
    } else {
        fprintf(stderr, "%s, %s: %s%s\n", nymbl_kind_name(err.kind),
                err.reason != NULL ? err.reason : "no reason",
                nymbl_kind_text(err.kind),
                err.outcome_unknown ? " (look before you repeat it)" : "");
    }
    nymbl_transfer_free(transfer);
    session_close(&session);
    return kind == NYMBL_OK ? 0 : 1;
}
