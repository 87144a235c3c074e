/* SPDX-License-Identifier: MIT */
/* A proxy's own response is not the service's. */
#include "peer.h"

#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

/* Calls go through the world's listener, to a service that does not exist. */
static void proxied_open(const char *scheme)
{
    nymbl_client_options options = {.base_url = "https://127.0.0.1:9",
                                    .api_key = "k"};
    char proxy[64];

    world_open(NULL);
    snprintf(proxy, sizeof(proxy), "%s://user:word@127.0.0.1:%d", scheme,
             world.port);
    options.proxy = proxy;
    nymbl_client_free(world.client);
    REQUIRE(nymbl_client_new(&world.client, &options, NULL) == NYMBL_OK);
}

static nymbl_transfer *start(int call)
{
    nymbl_transfer *transfer;
    nymbl_body *body;

    if (call == 0)
        return start_get();
    if (call == 1)
        return start_delete();
    if (call == 2)
        return start_download(NULL);
    body = body_of("%PDF-", 5);
    transfer = start_upload(body);
    nymbl_body_free(body);
    return transfer;
}

static void check_answer(int status, const char *headers, const char *reason)
{
    for (int call = 0; call < 4; call++) {
        nymbl_transfer *transfer;
        nymbl_error err = {0};
        request request;
        peer peer;

        proxied_open("http");
        transfer = start(call);
        peer_accept(&peer);
        peer_read_head(&peer, &request);
        CHECK(request_begins(&request, "CONNECT 127.0.0.1:9 HTTP/1.1\r\n"));
        CHECK(request_field(&request, "Authorization") == NULL);
        peer_respond(&peer, status, headers, "{\"message\":\"of the proxy\"}");
        CHECK_NUMBER(ended(transfer, &err), NYMBL_NETWORK);
        if (!CHECK_TEXT(err.reason, reason))
            printf("for %d\n", status);
        CHECK_NUMBER(err.status, status);
        CHECK(!err.outcome_unknown && !counts_of(transfer).sent);
        world_settle();
        CHECK(!peer_waits()); /* one connection is enough */
        nymbl_transfer_free(transfer);
        request_free(&request);
        peer_close(&peer);
        world_close();
    }
}

static void refusal_of_a_proxy_is_reported_as_such(void)
{
    check_answer(407, "Proxy-Authenticate: Basic realm=\"x\"\r\n",
                 "proxy_auth");
    check_answer(407, "", "proxy_auth");
    check_answer(403, "", "proxy");
    check_answer(400, "", "proxy");
    check_answer(401, "WWW-Authenticate: Basic realm=\"x\"\r\n", "proxy");
    check_answer(404, "", "proxy");
    check_answer(429, "Retry-After: 5\r\n", "proxy");
    check_answer(500, "", "proxy");
    check_answer(502, "", "proxy");
    check_answer(503, "", "proxy");
    check_answer(504, "", "proxy");
    check_answer(302, "Location: https://127.0.0.1/\r\n", "proxy");
}

static void proxy_that_is_down_is_named(void)
{
    static const char *const schemes[] = {"http",    "https",  "socks4",
                                          "socks4a", "socks5", "socks5h"};

    for (size_t i = 0; i < 4 * sizeof(schemes) / sizeof(schemes[0]); i++) {
        nymbl_transfer *transfer;
        nymbl_error err = {0};

        proxied_open(schemes[i / 4]);
        close(world.listener);
        transfer = start((int)(i % 4));
        CHECK_NUMBER(ended(transfer, &err), NYMBL_NETWORK);
        if (!CHECK_TEXT(err.reason, "proxy"))
            printf("for %s\n", schemes[i / 4]);
        CHECK_NUMBER(err.status, 0);
        CHECK(!err.outcome_unknown);
        nymbl_transfer_free(transfer);
        world.listener = listener_open(&world.port, 8);
        world_close();
    }
}

/* libcurl resolves a name in a thread, which begins while libcurl holds a lock.
 * Delay libcurl after the lock, so that the thread fails before libcurl asks
 * for its result: libcurl 8.14 then reports an unknown host, not an unknown
 * proxy.
 */
static bool unlock_is_slow;

__attribute__((visibility("default"))) int
pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    int (*unlock)(pthread_mutex_t *);
    int failure;

    *(void **)&unlock = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
    failure = unlock(mutex);
    if (unlock_is_slow)
        usleep(20000);
    return failure;
}

static void proxy_whose_name_is_invalid_is_named(void)
{
    nymbl_client_options options = {.base_url = "https://127.0.0.1"};
    char proxy[80] = "http://";

    memset(proxy + 7, 'x', 64); /* a label has at most 63 characters */
    options.proxy = strcat(proxy, ".invalid");
    world_open(&options);
    for (int i = 0; i < 4; i++) {
        nymbl_transfer *transfer;
        nymbl_error err = {0};

        unlock_is_slow = i > 1;
        transfer = start_get();
        CHECK_NUMBER(ended(transfer, &err), NYMBL_NETWORK);
        CHECK_TEXT(err.reason, "proxy");
        nymbl_transfer_free(transfer);
    }
    unlock_is_slow = false;
    world_close();
}

static void service_that_is_down_is_not_the_proxy(void)
{
    nymbl_client_options options = {.api_key = "k", .proxy = ""};
    nymbl_transfer *transfer;
    nymbl_error err = {0};
    char url[64];

    world_open(NULL);
    snprintf(url, sizeof(url), "https://127.0.0.1:%d", world.port);
    options.base_url = url;
    close(world.listener);
    nymbl_client_free(world.client);
    REQUIRE(nymbl_client_new(&world.client, &options, NULL) == NYMBL_OK);
    transfer = start_get();
    CHECK_NUMBER(ended(transfer, &err), NYMBL_NETWORK);
    CHECK_TEXT(err.reason, "connect");
    nymbl_transfer_free(transfer);
    world.listener = listener_open(&world.port, 8);
    world_close();
}

static void rejected_credentials_are_unauthorized(void)
{
    static const int statuses[][2] = {{400, NYMBL_UNAUTHORIZED},
                                      {401, NYMBL_UNAUTHORIZED},
                                      {403, NYMBL_FORBIDDEN},
                                      {404, NYMBL_NOT_FOUND},
                                      {500, NYMBL_SERVER}};

    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        nymbl_client_options options = {.client_id = "i",
                                        .client_secret = "wrong"};
        nymbl_transfer *transfer;
        nymbl_error err = {0};
        request request;
        peer peer;

        world_open(NULL);
        nymbl_client_free(world.client);
        world.client = token_client(options);
        REQUIRE(nymbl_token_start(&transfer, world.engine, world.client,
                                  NULL) == NYMBL_OK);
        peer_accept(&peer);
        peer_read(&peer, &request);
        peer_respond(&peer, statuses[i][0], "",
                     "{\"error\":\"invalid_client\"}");
        CHECK_NUMBER(ended(transfer, &err), statuses[i][1]);
        CHECK_NUMBER(err.status, statuses[i][0]);
        nymbl_transfer_free(transfer);
        request_free(&request);
        peer_close(&peer);
        world_close();
    }
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(refusal_of_a_proxy_is_reported_as_such),
        TEST(proxy_that_is_down_is_named),
        TEST(proxy_whose_name_is_invalid_is_named),
        TEST(service_that_is_down_is_not_the_proxy),
        TEST(rejected_credentials_are_unauthorized),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
