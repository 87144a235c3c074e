/* SPDX-License-Identifier: MIT */
/* Scenarios in which each allocation fails in turn, and a service that answers
 * their requests and counts them. */
#ifndef NYMBL_SCENARIO_H
#define NYMBL_SCENARIO_H

#define NYMBL_CHAOS_ITSELF
#include "chaos.h"
#include "peer.h"

#define BODY "bytes-of-test, of which there are a few more than thirty-two"
#define PATIENT "patient-of-test"

/* Whose allocations fail: those of the core; of libcurl, too; or of OpenSSL,
 * too. */
typedef enum scenario_scope {
    SCENARIO_CORE,
    SCENARIO_LIBCURL,
    SCENARIO_OPENSSL
} scenario_scope;

extern scenario_scope scenario_scope_now;

/* Fail the nth allocation of `run`, or that and all later ones, for every n; or
 * for some of them, unless NYMBL_SPEC_LARGE is set. `prepare` (or NULL) is
 * called before, while none fails. `run` returns whether it has succeeded. */
void scenario_repeat(void (*prepare)(void), bool (*run)(void));

/* Do the same for the first engine of a process, each time in a new one. */
void scenario_repeat_first(bool (*run)(void));

/* Check that a failure is one that the lack of memory may cause. */
void scenario_check(nymbl_kind kind, const nymbl_error *err);
/* The same, or, if libcurl's allocations fail, this kind for this reason. */
void scenario_check_or(nymbl_kind kind, const nymbl_error *err,
                       nymbl_kind other, const char *reason);

/* Whether this is the failure to use a line that has ended. An I/O thread may
 * have ended it already, for the lack of memory. */
bool scenario_line_has_ended(nymbl_kind kind, const nymbl_error *err);

/* Define a test. */
#define SCENARIO(name)                                                         \
    static void name##_or_fails(void)                                          \
    {                                                                          \
        scenario_repeat(NULL, name);                                           \
    }
#define SCENARIO_PREPARED(prepare, name)                                       \
    static void name##_or_fails(void)                                          \
    {                                                                          \
        scenario_repeat(prepare, name);                                        \
    }

/* ---- the service ---- */

#define SERVICE_PEERS 8

typedef struct service service;
struct service {
    /* The response to a request; or NULL for none. */
    const char *(*respond)(const service *self, const char *request);
    const char *response; /* to each request, without that function */
    bool gets_upload; /* of which libcurl does not know if it had a response */
    peer peers[SERVICE_PEERS];
    int connections;
    int begun;    /* requests of which bytes have arrived */
    int requests; /* those that have arrived completely */
    int responses;
    text last; /* the last one of these */
};

/* How a connection is accepted and closed; replaced for TLS. */
extern void (*service_accept)(peer *peer);
extern void (*service_drop)(peer *peer);

/* Serve until the transfer has ended or has bytes to read. `started`: what
 * starting it has returned. A failure is checked. */
nymbl_kind service_run(service *self, nymbl_kind started,
                       nymbl_transfer *transfer, nymbl_error *err);
/* Close the connections. */
void service_close(service *self);
/* Free the transfer, and prepare for the requests of the next one on the same
 * connections. */
void service_next(service *self, nymbl_transfer **transfer);
/* After an upload or a delete: it was received once at most, completely if it
 * has succeeded, and not at all if it counts as not sent. If it was received
 * and has failed, its outcome is unknown. */
void service_check_once(const service *self, nymbl_transfer *transfer,
                        nymbl_kind kind, const nymbl_error *err);
/* Whether the last request has this form, in which * is any boundary. */
bool service_received_form(const service *self, const char *form);

/* ---- the test ---- */

/* Run the tests; the first argument may be a scope: "core", "libcurl" or
 * "openssl". */
int scenario_main(const test *tests, size_t count, int argc, char **argv);

extern const test scenario_local_tests[];
extern const size_t scenario_local_count;
extern const test scenario_tls_tests[];
extern const size_t scenario_tls_count;
/* Let OpenSSL's allocations fail; false if it has made some. */
bool scenario_tls_hook(void);

#endif
