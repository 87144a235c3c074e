/* SPDX-License-Identifier: MIT */
/* Requests on a line while each system call fails, libcurl's too, once or from
 * then on, or all reads and writes are short: a request gets its own reply or a
 * failure, and nothing is left. With NYMBL_TEST_THREAD the engine has a thread.
 */
#include "faults.h"
#include "peer.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define GREETING "hello 1\r\n"
#define REQUESTS 3
#define CALLS_MAX 2000

/* A server in another process. It answers each line "WORD NUMBER" by a reply
 * with that number. */
static void serve(int fd)
{
    FILE *in = fdopen(fd, "r");
    char line[64], reply[64];

    while (in != NULL && fgets(line, sizeof(line), in) != NULL) {
        snprintf(reply, sizeof(reply), "*2\r\n$5\r\nreply\r\n:%d\r\n",
                 atoi(strchr(line, ' ') + 1));
        if (send(fd, reply, strlen(reply), MSG_NOSIGNAL) < 0)
            break;
    }
    if (in != NULL)
        fclose(in);
}

static pid_t server_start(int *port)
{
    int listener = listener_open(port, 64);
    pid_t server = fork();

    REQUIRE(server >= 0);
    while (server == 0) {
        fd_set set;
        int fd;

        FD_ZERO(&set);
        FD_SET(listener, &set);
        if (getppid() == 1 || select(listener + 1, &set, NULL, NULL,
                                     &(struct timeval){.tv_sec = 1}) <= 0)
            continue;
        fd = accept(listener, NULL, NULL);
        if (fd >= 0)
            serve(fd);
    }
    close(listener);
    return server;
}

/* Start requests and wait for their replies. Returns how many have arrived. */
static int converse(nymbl_engine *engine, nymbl_line *line)
{
    nymbl_transfer *transfers[REQUESTS] = {NULL};
    int arrived = 0;

    for (int i = 0; i < REQUESTS; i++) {
        char bytes[32];

        snprintf(bytes, sizeof(bytes), "please %d\r\n", 10 * i);
        nymbl_line_start(&transfers[i], line, bytes, strlen(bytes), NULL);
        nymbl_line_send(line, "drop 7\r\n", 8, NULL);
    }
    for (int i = 0; i < REQUESTS; i++) {
        nymbl_error err = {0};
        nymbl_kind kind = NYMBL_AGAIN;
        char reply[64];
        size_t size;

        if (transfers[i] == NULL)
            continue;
        for (int j = 0; j < 2000 && kind == NYMBL_AGAIN; j++) {
            nymbl_engine_pump(engine, 0.01);
            kind = nymbl_transfer_result(transfers[i], &err);
        }
        CHECK(kind != NYMBL_AGAIN);
        snprintf(reply, sizeof(reply), "*2\r\n$5\r\nreply\r\n:%d\r\n", 10 * i);
        if (kind == NYMBL_OK)
            CHECK_TEXT(nymbl_transfer_body(transfers[i], &size), reply);
        else
            CHECK(err.kind == kind && kind < 0 && kind != NYMBL_PROTOCOL);
        arrived += kind == NYMBL_OK;
        nymbl_transfer_free(transfers[i]);
    }
    return arrived;
}

/* Run everything under a plan, and check that nothing is left. Returns the
 * number of replies, and in *struck whether a call failed. */
static int try(const char *plan, int port, bool *struck)
{
    nymbl_line_options options = {.host = "127.0.0.1",
                                  .port = port,
                                  .greeting = GREETING,
                                  .greeting_size = strlen(GREETING),
                                  .greeting_replies = 1};
    int before = fds_open(), arrived = 0;
    nymbl_engine *engine;
    nymbl_line *line;

    faults_plan(plan);
    if (nymbl_engine_new(&engine, NULL, NULL) == NYMBL_OK) {
        if (getenv("NYMBL_TEST_THREAD") == NULL ||
            nymbl_engine_start_thread(engine, NULL) == NYMBL_OK) {
            REQUIRE(nymbl_line_new(&line, engine, &options, NULL) == NYMBL_OK);
            arrived = converse(engine, line);
            nymbl_line_free(line);
        }
        nymbl_engine_free(engine);
    }
    *struck = faults_struck() != NULL;
    faults_plan(NULL);
    CHECK_NUMBER(nymbl_object_count(), 0);
    CHECK_NUMBER(fds_open(), before);
    return arrived;
}

static void a_failing_call_mixes_no_replies(void)
{
    static const char *const faults[] = {
        "fail=%d:ECONNRESET", "fail=%d:EINTR",  "fail=%d:EMFILE",
        "fail=%d:ENOMEM",     "from=%d:EMFILE", "from=%d:ECONNRESET"};
    bool struck = true;
    int port;
    pid_t server = server_start(&port);

    CHECK_NUMBER(try("", port, &struck), REQUESTS); /* opens what stays open */
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        int nth = 0, whole = 0;

        for (struck = true; struck && nth < CALLS_MAX && !test_failed();) {
            char plan[64];

            snprintf(plan, sizeof(plan), faults[i], ++nth);
            whole += try(plan, port, &struck) == REQUESTS;
        }
        CHECK(nth > 10 && nth < CALLS_MAX);
        CHECK(whole > 0);
        printf("tried %d failing or last system calls (%s, %d without harm)\n",
               nth - 1, faults[i], whole);
    }
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
}

static void short_reads_and_writes_change_nothing(void)
{
    int port;
    pid_t server = server_start(&port);
    bool struck;

    CHECK_NUMBER(try("", port, &struck), REQUESTS);
    for (unsigned i = 0; i < 30; i++) {
        char plan[32];

        snprintf(plan, sizeof(plan), "short=%u", faults_seed(1) + i);
        if (!CHECK_NUMBER(try(plan, port, &struck), REQUESTS))
            printf("    %s\n", plan);
    }
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
}

int main(int argc, char **argv)
{
    static const test tests[] = {
        TEST(a_failing_call_mixes_no_replies),
        TEST(short_reads_and_writes_change_nothing),
    };

    return test_main(tests, TEST_COUNT(tests), argc, argv);
}
