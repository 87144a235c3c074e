/* SPDX-License-Identifier: MIT */
/* A partial file is never continued for another account: tenants share URLs,
 * ids and ETags, and differ in key and scope. */
#include "peer.h"

#include <sys/stat.h>

#define SIZE 60000
#define CUT 40000

/* The options of the first client. */
static const nymbl_client_options first = {
    .api_key = "key-one-of-test",
    .token_url = "https://idp.test/token",
    .client_id = "client-one",
    .client_secret = "secret-one",
    .scope = "api/one",
    .allow_http = true,
};

static nymbl_client *client_of(nymbl_client_options options)
{
    nymbl_client *client;
    char url[64];

    snprintf(url, sizeof(url), "http://127.0.0.1:%d%s", world.port,
             options.base_url != NULL ? options.base_url : "/v1");
    options.base_url = url;
    REQUIRE(nymbl_client_new(&client, &options, NULL) == NYMBL_OK);
    return client;
}

/* Start a download with resume. Returns its request's range. */
static nymbl_transfer *asked_range(nymbl_client *client, const char *token,
                                   const char *patient, const char *document,
                                   peer *peer, bool *ranged)
{
    nymbl_download_options options = {.path = world_path("doc"),
                                      .content_type = "text/plain",
                                      .resume = true};
    nymbl_transfer *transfer;
    request request;

    REQUIRE(nymbl_download_start(&transfer, world.engine, client, token,
                                 patient, document, &options,
                                 NULL) == NYMBL_OK);
    peer_accept(peer);
    peer_read(peer, &request);
    *ranged = request_field(&request, "Range") != NULL;
    CHECK(*ranged == (request_field(&request, "If-Range") != NULL));
    request_free(&request);
    return transfer;
}

/* The first account's download is cut off. */
static void part_left(const char *data)
{
    nymbl_client *client = client_of(first);
    nymbl_transfer *transfer;
    bool ranged;
    peer peer;

    transfer = asked_range(client, "tok", "7", "9", &peer, &ranged);
    CHECK(!ranged);
    peer_say(&peer, "HTTP/1.1 200 OK\r\nETag: \"same\"\r\n"
                    "Content-Length: 60000\r\n\r\n");
    peer_send(&peer, data, CUT);
    world_settle();
    peer_close(&peer);
    CHECK(ended(transfer, NULL) == NYMBL_TRUNCATED);
    nymbl_transfer_free(transfer);
    nymbl_client_free(client);
    CHECK_NUMBER(world_names(), 2);
}

/* Another account resumes, and its service would send the rest of its own
 * document. */
static void check_next(const nymbl_client_options *options, const char *token,
                       const char *patient, const char *document,
                       bool same_account)
{
    char *ours = pattern(SIZE), *theirs = malloc(SIZE);
    const char *expected = same_account ? ours : theirs;
    nymbl_transfer *transfer;
    nymbl_client *client;
    bool ranged;
    text got;
    peer peer;

    REQUIRE(theirs != NULL);
    for (size_t i = 0; i < SIZE; i++)
        theirs[i] = (char)(ours[i] ^ 0x55);
    world_open(NULL);
    part_left(ours);
    client = client_of(*options);
    transfer = asked_range(client, token, patient, document, &peer, &ranged);
    CHECK(ranged == same_account);
    if (ranged) {
        struct stat status;
        char head[256];
        long from;

        CHECK(stat(world_path("doc.nymbl-part"), &status) == 0);
        from = (long)status.st_size;
        snprintf(head, sizeof(head),
                 "HTTP/1.1 206 x\r\nETag: \"same\"\r\nContent-Length: %ld\r\n"
                 "Content-Range: bytes %ld-%d/%d\r\n\r\n",
                 SIZE - from, from, SIZE - 1, SIZE);
        peer_say(&peer, head);
        peer_send(&peer, expected + from, (size_t)(SIZE - from));
    } else {
        peer_say(&peer, "HTTP/1.1 200 OK\r\nETag: \"same\"\r\n"
                        "Content-Length: 60000\r\n\r\n");
        peer_send(&peer, expected, SIZE);
    }
    CHECK(ended(transfer, NULL) == NYMBL_OK);
    got = world_read("doc");
    CHECK(got.size == SIZE && memcmp(got.data, expected, SIZE) == 0);
    text_free(&got);
    CHECK_NUMBER(world_names(), 1);
    peer_close(&peer);
    nymbl_transfer_free(transfer);
    nymbl_client_free(client);
    world_close();
    free(ours);
    free(theirs);
}

static void same_account_resumes(void)
{
    nymbl_client_options options = first;

    check_next(&options, "tok", "7", "9", true);
    check_next(&options, "another-token", "7", "9", true);
    options.client_secret = "a secret that has been replaced";
    options.user_agent = "another/1";
    options.connect_timeout = 3;
    check_next(&options, "tok", "7", "9", true);
}

static void another_key_starts_over(void)
{
    nymbl_client_options options = first;

    options.api_key = "key-two-of-test";
    check_next(&options, "tok", "7", "9", false);
    options.api_key = "key-one-of-tes"; /* nor a key with the same beginning */
    check_next(&options, "tok", "7", "9", false);
}

static void other_credentials_start_over(void)
{
    nymbl_client_options options = first;

    options.client_id = "client-two";
    check_next(&options, "tok", "7", "9", false);
    options = first;
    options.scope = "api/two";
    check_next(&options, "tok", "7", "9", false);
    options.scope = NULL;
    check_next(&options, "tok", "7", "9", false);
    options = first;
    options.token_url = "https://idp.test/other/token";
    check_next(&options, "tok", "7", "9", false);
    options.token_url = NULL; /* a caller's token: only the key counts */
    options.client_id = options.client_secret = options.scope = NULL;
    check_next(&options, "tok", "7", "9", false);
    options = first; /* the same text, divided differently */
    options.client_id = "client-oneapi";
    options.scope = "/one";
    check_next(&options, "tok", "7", "9", false);
}

static void another_service_or_document_starts_over(void)
{
    nymbl_client_options options = first;

    options.base_url = "/v2";
    check_next(&options, "tok", "7", "9", false);
    check_next(&first, "tok", "8", "9", false);
    check_next(&first, "tok", "7", "10", false);
}

static bool holds(const text *meta, const char *word)
{
    return meta->data != NULL && strstr(meta->data, word) != NULL;
}

static void metadata_identifies_nobody(void)
{
    static const char *const words[] = {
        "key-one",   "idp.test", "client-one", "secret-one", "api/one", "tok",
        "127.0.0.1", "Patients", "http",       "/v1",        "(7)",     "(9)"};
    char *data = pattern(SIZE);
    struct stat status;
    text meta;

    world_open(NULL);
    part_left(data);
    meta = world_read("doc.nymbl-meta");
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (!CHECK(!holds(&meta, words[i])))
            printf("it holds: %s\n", words[i]);
    }
    CHECK(holds(&meta, "nymbl meta 4\n"));
    CHECK(holds(&meta, "\n\"same\"\n"));
    CHECK(stat(world_path("doc.nymbl-meta"), &status) == 0);
    CHECK_NUMBER(status.st_mode & 07777, 0600);
    text_free(&meta);
    free(data);
    world_close();
}

/* The metadata of an earlier version, which has no account. */
static void metadata_without_an_account_is_ignored(void)
{
    nymbl_client *client;
    nymbl_transfer *transfer;
    char *data = pattern(SIZE), meta[256];
    bool ranged;
    peer peer;

    world_open(NULL);
    part_left(data);
    snprintf(meta, sizeof(meta),
             "nymbl part 1\nhttp://127.0.0.1:%d/v1/Patients(7)/Documents(9)/"
             "$value\n\"same\"\n",
             world.port);
    world_write("doc.nymbl-meta", meta, strlen(meta));
    client = client_of(first);
    transfer = asked_range(client, "tok", "7", "9", &peer, &ranged);
    CHECK(!ranged);
    nymbl_transfer_free(transfer);
    peer_close(&peer);
    nymbl_client_free(client);
    free(data);
    world_close();
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(same_account_resumes),
        TEST(another_key_starts_over),
        TEST(other_credentials_start_over),
        TEST(another_service_or_document_starts_over),
        TEST(metadata_identifies_nobody),
        TEST(metadata_without_an_account_is_ignored),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
