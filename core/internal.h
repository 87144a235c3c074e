/* SPDX-License-Identifier: MIT */
/* What the files of the core share, and the limits of all that grows. */
#ifndef NYMBL_INTERNAL_H
#define NYMBL_INTERNAL_H

#include "nymbl.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>

#if defined(__GNUC__)
#pragma GCC visibility push(hidden)
#endif

/* ---- limits ---- */

#define NYMBL__REPLY_MAX NYMBL_REPLY_MAX
#define NYMBL__TOKEN_REPLY_MAX (64u << 10)
#define NYMBL__ERROR_REPLY_MAX (64u << 10)
#define NYMBL__HEAD_MAX (64u << 10) /* 1xx heads and trailers included */
#define NYMBL__RECEIVE_WINDOW (128u << 10)
#define NYMBL__SEND_WINDOW (128u << 10)
#define NYMBL__LEARN_MAX (1u << 20) /* held back to learn a body's size */
#define NYMBL__REDIRECTS_MAX 5
#define NYMBL__URL_MAX (64u << 10)
#define NYMBL__TYPE_MAX 256      /* a Content-Type; longer is ignored */
#define NYMBL__VALIDATOR_MAX 256 /* an ETag or a date */
/* First bytes that are looked at; readers of PDF look for its signature in so
 * many (ISO 32000-1, annex H, note 13). */
#define NYMBL__SNIFF 1024
#define NYMBL__SIGNATURE_MAX 8 /* bytes of the longest other signature */
#define NYMBL__TEXT_MIN 16     /* bytes that tell what text is */
#define NYMBL__IDLE_HANDLES 16
#define NYMBL__GUESTS 64      /* that connect and have said nothing yet */
#define NYMBL__LEASE_TOKEN 32 /* hexadecimal digits */
#define NYMBL__SOCKETS 128 /* that are known for reuse; more are not reused */

#define NYMBL__CONNECT_SECONDS 10.0
#define NYMBL__STALL_SECONDS 30.0
#define NYMBL__REPLY_SECONDS 60.0         /* for a reply held in memory */
#define NYMBL__UPLOAD_REPLY_SECONDS 120.0 /* for the reply to begin */
#define NYMBL__FRESH_SECONDS 5L           /* idle at most, for POST, DELETE */

/* ---- error.c ---- */

/* Write *err, if there is one. Returns kind. */
nymbl_kind nymbl__fail(nymbl_error *err, nymbl_kind kind, const char *reason);

/* The kind of a status that is not a success. */
nymbl_kind nymbl__status_kind(int status);

/* The fixed word of an errno. */
const char *nymbl__errno_reason(int code);

/* Count objects for nymbl_live_objects(). */
void nymbl__live(int change);

/* ---- ascii.c ---- */

/* For names and words of protocols. <ctype.h> and <strings.h> ask the locale,
 * which the host program may set at any time. */
char nymbl__ascii_lower(char byte);
/* Whether two texts are the same but for the case of letters. */
bool nymbl__ascii_equal(const char *a, const char *b);
/* The same for their first bytes; a NUL ends both. */
bool nymbl__ascii_begins(const char *text, const char *with, size_t size);

/* ---- buffer.c ---- */

/* Bytes in memory that are wiped when freed, and never grow past `max`. */
typedef struct nymbl__buffer {
    char *data; /* NUL-terminated where not NULL */
    size_t size;
    size_t capacity;
    size_t max;
} nymbl__buffer;

void nymbl__buffer_init(nymbl__buffer *buffer, size_t max);
/* NYMBL_OK, NYMBL_TOO_LARGE past the maximum, NYMBL_NO_MEMORY. */
nymbl_kind nymbl__buffer_append(nymbl__buffer *buffer, const void *data,
                                size_t size);
nymbl_kind nymbl__buffer_puts(nymbl__buffer *buffer, const char *text);
void nymbl__buffer_free(nymbl__buffer *buffer);
/* Move the text out: yours to release with nymbl__secret_free(). */
char *nymbl__buffer_take(nymbl__buffer *buffer);

/* A queue of bytes with a maximum: the window between two speeds. */
typedef struct nymbl__ring {
    char *data;
    size_t start;
    size_t size;
    size_t capacity;
    size_t max;
} nymbl__ring;

void nymbl__ring_init(nymbl__ring *ring, size_t max);
size_t nymbl__ring_room(const nymbl__ring *ring);
/* Put all of it in: the caller has looked at the room. */
nymbl_kind nymbl__ring_put(nymbl__ring *ring, const void *data, size_t size);
size_t nymbl__ring_peek(const nymbl__ring *ring, void *out, size_t cap);
/* The same from a position on. */
size_t nymbl__ring_peek_at(const nymbl__ring *ring, size_t at, void *out,
                           size_t cap);
size_t nymbl__ring_take(nymbl__ring *ring, void *out, size_t cap);
void nymbl__ring_free(nymbl__ring *ring);

void nymbl__wipe(void *data, size_t size);
/* Duplicate text, NULL for NULL. */
nymbl_kind nymbl__text_copy(char **out, const char *text);
/* Wipe text and free it. NULL does nothing. */
void nymbl__secret_free(char *text);

/* ---- sha256.c ---- */

typedef struct nymbl__sha256 {
    uint32_t state[8];
    uint64_t size; /* bytes so far */
    unsigned char block[64];
} nymbl__sha256;

void nymbl__sha256_init(nymbl__sha256 *hash);
void nymbl__sha256_add(nymbl__sha256 *hash, const void *data, size_t size);
/* The end: 64 hexadecimal digits. Wipes the hash. */
void nymbl__sha256_text(nymbl__sha256 *hash, char text[65]);

/* ---- url.c ---- */

bool nymbl__url_is_https(const char *url);
/* Whether scheme, host and port agree (RFC 6454, section 5). */
bool nymbl__url_same_origin(const char *a, const char *b);
/* Whether a text begins with a URL's "host port number". */
bool nymbl__url_is_at(const char *url, const char *text);
/* Resolve a reference (RFC 3986, section 5) without fragment. */
nymbl_kind nymbl__url_resolve(char **out, const char *base,
                              const char *reference);
/* Append text, percent-encoded but for RFC 3986's unreserved characters. */
nymbl_kind nymbl__url_escape(nymbl__buffer *buffer, const char *text);

/* ---- descriptor.c ---- */

/* The same file under a number that is above 2, or -1 with errno; the old one
 * is closed. For every descriptor that is opened here. */
int nymbl__fd_high(int fd);
/* Occupy descriptors 0 to 2 where they are closed: before libcurl opens what we
 * have no hand in. */
void nymbl__fds_guard(void);

/* ---- place.c ---- */

/* Where a file is to be. */
typedef struct nymbl__place {
    int directory; /* -1: none */
    int from;      /* where `folder` begins, if it is relative; or -1 */
    char *folder;  /* path of `directory`, without links; NULL: `from` */
    char *name;    /* in it */
} nymbl__place;

/* Follow a path, links included, to a directory and a name in it that is free
 * or a file's. Refuses links that strangers have put into a directory such as
 * /tmp, descriptor paths, names of drafts and parts, and what is no place for a
 * file. */
nymbl_kind nymbl__place_find(nymbl__place *place, const char *path,
                             bool overwrite, const char **reason);
/* Whether the directory is still where it was found. Where the process is now
 * does not matter. */
bool nymbl__place_stands(const nymbl__place *place, const char **reason);
void nymbl__place_free(nymbl__place *place);

/* ---- draft.c ---- */

#define NYMBL__DRAFT_NAME 32
#define NYMBL__DRAFT_PREFIX ".nymbl-tmp-"

/* A file that is written and has not got its name. */
typedef struct nymbl__draft {
    int fd;                       /* locked */
    char name[NYMBL__DRAFT_NAME]; /* that it has meanwhile, or "" */
} nymbl__draft;

/* Remove what killed processes have left in a directory, if this one has not
 * done so before. */
void nymbl__drafts_sweep(int directory);
/* Begin a file in a directory. */
nymbl_kind nymbl__draft_open(nymbl__draft *draft, int directory,
                             const char **reason);
/* Whether one could be begun. */
nymbl_kind nymbl__draft_try(int directory, const char **reason);
/* Give it its name. 0, or -1 with errno: then it is still to be dropped. */
int nymbl__draft_publish(nymbl__draft *draft, int directory, const char *name,
                         bool overwrite);
/* Remove and close it; one without a file is left alone. */
void nymbl__draft_drop(nymbl__draft *draft, int directory);

/* Remove a file that a process has left behind. Returns whether there is no
 * file of that name now. */
bool nymbl__leftover_remove(int directory, const char *name);

/* Whether an error says that a file system lacks a step. Some say so as if it
 * were forbidden: CIFS, drvfs, FUSE and NFS for modes and links; Android for
 * all links. If it really is forbidden, or nothing may be written at all,
 * rename(), the last resort, fails too. */
bool nymbl__is_lacking(int code);
/* fsync(), not to be interrupted. 0; 1 if the file system cannot do that; -1
 * with errno. */
int nymbl__file_flush(int fd);
/* The same for the names in a directory. */
int nymbl__directory_flush(int directory);
/* fchmod(), if the file system can do that. 0, or -1 with errno. */
int nymbl__file_set_mode(int fd, unsigned mode);
/* Rename the file that is open here; without `overwrite` it fails with EEXIST
 * where there is one. 0, or -1 with errno. */
int nymbl__file_rename(int fd, int directory, const char *from, const char *to,
                       bool overwrite);
/* Whether a name is that of the file that is open here. */
bool nymbl__fd_has_name(int fd, int directory, const char *name);

/* ---- part.c ---- */

#define NYMBL__PART_END ".nymbl-part"
#define NYMBL__NOTE_END ".nymbl-note"

/* What is kept beside a file of an interrupted download. */
typedef struct nymbl__part {
    int fd;
    int directory; /* borrowed */
    char *name;
    char *note;        /* name of the file that says what it is a part of */
    char resource[65]; /* nymbl__client_resource() */
    int64_t there;     /* bytes of it that are good, or 0 */
    int64_t size;      /* those that it goes on from */
    char validator[NYMBL__VALIDATOR_MAX]; /* "": it cannot be gone on from */
} nymbl__part;

/* Open or begin a part. NYMBL_DONE: none can be kept here (a link, somebody
 * else's file, one that another process writes). */
nymbl_kind nymbl__part_open(nymbl__part *part, int directory,
                            const char *target, const char *resource);
/* Begin from the first byte, under a validator, or under none: then nothing is
 * kept. False where the old note cannot be removed or the file not emptied. */
bool nymbl__part_restart(nymbl__part *part, const char *validator);
/* Go back by a byte, so that there is one to ask for: a part may be the whole
 * document. */
void nymbl__part_back(nymbl__part *part);
/* Have it survive, with so many bytes, a power cut too. False if it cannot be
 * gone on from. */
bool nymbl__part_keep(nymbl__part *part, int64_t length, bool whole);
/* Give it its final name. 0, or -1 with errno: then it is kept. */
int nymbl__part_publish(nymbl__part *part, const char *target, bool overwrite);
/* Remove the name that a kill has left of a part whose file has got the
 * target's name. */
void nymbl__part_settle(int directory, const char *target);
/* Remove its files. */
void nymbl__part_remove(const nymbl__part *part);
/* Remove those of a target that nobody writes at the moment. */
void nymbl__part_discard(int directory, const char *target);
/* Close and release; the files stay. */
void nymbl__part_free(nymbl__part *part);

/* ---- save.c ---- */

/* A file that appears as a whole or not at all. */
typedef struct nymbl__save nymbl__save;

/* `resource`: keep a part of this, as nymbl__client_resource() names it; NULL:
 * keep none. */
nymbl_kind nymbl__save_open(nymbl__save **out, const char *path, unsigned mode,
                            bool overwrite, const char *resource,
                            nymbl_error *err);
/* Bytes of a part that are there, and the validator to ask for the rest under.
 */
int64_t nymbl__save_offset(const nymbl__save *save);
const char *nymbl__save_validator(const nymbl__save *save);
/* The part is as long as the document: have its last byte asked for again. */
void nymbl__save_back(nymbl__save *save);
/* Copy the first bytes of a part; gives how many. */
size_t nymbl__save_peek(const nymbl__save *save, void *buf, size_t cap);
/* The document comes from its first byte, under a validator or NULL. */
nymbl_kind nymbl__save_restart(nymbl__save *save, const char *validator,
                               const char **reason);
nymbl_kind nymbl__save_write(nymbl__save *save, const void *data, size_t size,
                             const char **reason);
/* Flush, name, release. */
nymbl_kind nymbl__save_commit(nymbl__save *save, const char **reason);
/* Release; what was written stays where it can be gone on from. */
void nymbl__save_suspend(nymbl__save *save);
/* Remove what was written, release. NULL does nothing. */
void nymbl__save_abandon(nymbl__save *save);

/* ---- watch.c ---- */

/* A regular file whose bytes are sent, as it was when that began. */
typedef struct nymbl__watch {
    int fd; /* borrowed; -1: nothing is watched */
    struct stat before;
    uint64_t name; /* a hash of its name, or 0 */
} nymbl__watch;

/* Does nothing if it is no regular file. */
void nymbl__watch_begin(nymbl__watch *watch, int fd);
/* Whether what was read meanwhile may be of two states of the file. */
bool nymbl__watch_has_changed(const nymbl__watch *watch);

/* ---- upload.c ---- */

/* What stands around the file in a multipart body; strings are owned. */
typedef struct nymbl__form {
    char *file_name;
    char *content_type;
    char *document_type;
    char *description;
} nymbl__form;

void nymbl__body_retain(nymbl_body *body);
/* Bind the body to the transfer that sends it, from its first byte. */
nymbl_kind nymbl__body_attach(nymbl_body *body, nymbl_transfer *transfer,
                              int64_t max, nymbl_error *err);
/* Let it go; `refuse`: pushes are told that no more is taken. */
void nymbl__body_detach(nymbl_body *body);
bool nymbl__body_all_released(const nymbl_body *body);
bool nymbl__body_is_pushed(const nymbl_body *body);
/* Under the lock: whether a paused send has something to go on with. */
bool nymbl__body_can_go_on(const nymbl_body *body);
int64_t nymbl__body_released(const nymbl_body *body);
/* Set the multipart body on an easy handle; *mime is freed by the caller. */
nymbl_kind nymbl__body_apply(nymbl_body *body, const nymbl__form *form,
                             CURL *easy, curl_mime **mime);

/* ---- imports.c: on Linux with glibc; elsewhere nothing is found ---- */

/* An object in memory: the program or a shared library. */
typedef struct nymbl__image {
    uintptr_t base;
    const void *headers; /* ElfW(Phdr), as many as header_count */
    size_t header_count;
    uintptr_t begin, size; /* from its first segment to the end of its last */
} nymbl__image;

/* Find the object that an address belongs to. */
bool nymbl__image_find(nymbl__image *out, const void *address);
/* Find the C library. */
bool nymbl__image_libc(nymbl__image *out);
bool nymbl__image_holds(const nymbl__image *image, uintptr_t at);
/* Receive a function that an object refers to, and the address that the
 * dynamic linker has bound the reference to, or NULL if it has not yet. */
typedef void nymbl__import_visit(const char *name, void *bound, void *payload);
/* Visit each reference of an object to a function that another object may
 * define, once or more, except those that are bound to `passed_over` objects.
 */
void nymbl__imports_each(const nymbl__image *image,
                         const nymbl__image *passed_over, size_t count,
                         nymbl__import_visit *visit, void *payload);

/* ---- tls.c ---- */

/* Whether the peer of a transfer's TLS connection has said that nothing more
 * comes (close_notify; RFC 8446, section 6.1). Within a callback only. */
bool nymbl__tls_has_ended(CURL *easy);
/* Whether bytes have come that were not read. Within a callback only. */
bool nymbl__tls_has_pending(CURL *easy);

/* ---- client.c ---- */

struct nymbl_client {
    atomic_int references;
    nymbl_engine *engine; /* where it last started a transfer */
    nymbl_client *next;   /* of that engine's */
    nymbl_client *next_closing;
    bool closed;
    bool allow_http;
    char *base_url; /* without a slash at the end */
    char *api_key;
    char *token_url;
    char *client_id;
    char *client_secret;
    char *scope;
    char *ca_file;
    char *ca_path;
    char *proxy; /* may hold a password */
    char *user_agent;
    double connect_timeout;
    double stall_timeout;
    int64_t max_upload_bytes;
    int max_connections;
};

void nymbl__client_retain(nymbl_client *client);
/* Drop such a reference, from any thread; nymbl_client_free() is its owner's.
 */
void nymbl__client_release(nymbl_client *client);
/* Be counted as a user of an engine's connections. */
void nymbl__client_join(nymbl_client *client, nymbl_engine *engine);
/* A name for what an account sees at a URL, which tells nothing of either: a
 * SHA-256. */
void nymbl__client_resource(const nymbl_client *client, const char *url,
                            char out[65]);
/* TLS and user agent of a client, for a request to url by way of a proxy. */
CURLcode nymbl__client_apply(const nymbl_client *client, CURL *easy,
                             const char *url, const char *proxy);

/* ---- engine.c ---- */

/* What the owner of a transfer asks of the engine. */
enum {
    NYMBL__ADD = 1,
    NYMBL__REMOVE = 2,
    NYMBL__UNPAUSE = 4,
    NYMBL__CONFIRM = 8,
};

/* A socket that libcurl has opened, and to where. */
typedef struct nymbl__socket {
    int fd;          /* -1: it was closed */
    ino_t inode;     /* tells whether fd is still this socket */
    uint64_t origin; /* hash of scheme, host and port */
} nymbl__socket;

/* One who has connected to the listener and has not said all of his token. */
typedef struct nymbl__guest {
    int fd; /* -1: a free place */
    size_t got;
    char token[NYMBL__LEASE_TOKEN];
} nymbl__guest;

/* Which file it is. */
typedef struct nymbl__mark {
    dev_t device;
    ino_t inode;
} nymbl__mark;

struct nymbl_engine {
    atomic_int references; /* its owner, its transfers, bodies and clients */
    pid_t pid;
    double (*clock)(void *payload);
    void *payload;

    /* of whoever pumps */
    CURLM *multi; /* replaced under the lock */
    CURLSH *share;
    CURL *idle[NYMBL__IDLE_HANDLES];
    int idle_count;
    bool handles_serve_once; /* no easy handle is kept (quirks.c) */
    nymbl__socket sockets[NYMBL__SOCKETS];
    unsigned sockets_made;
    bool pumping;
    bool admit; /* a place on the wire may have become free */
    nymbl_transfer *waiting, *waiting_last; /* for a place on the wire */
    nymbl_transfer *running;
    nymbl__guest guests[NYMBL__GUESTS];
    unsigned guests_seated; /* the next place is the one longest taken */
    bool deaf;              /* a guest waits whom no descriptor was left for */
    struct curl_waitfd *polled; /* leases, beside libcurl's sockets */
    unsigned polled_count, polled_capacity;

    /* under the lock */
    bool news;             /* somebody was signaled */
    nymbl_client *clients; /* open ones that have started a transfer */
    nymbl_client *closing; /* their transfers are to be canceled */
    nymbl_transfer *commands, *commands_last;
    int listener; /* of leases, or -1 */
    bool stopping;

    /* thread.c */
    bool closed;   /* these two are the owner's, and ... */
    bool threaded; /* ... change while there is no thread */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t told;
    char folder[32]; /* of the listener; the owner's */
    int folder_fd;   /* its lock, or -1 */
    nymbl__mark folder_mark, socket_mark;
};

/* The id of this process, once there is an engine. */
pid_t nymbl__process(void);
void nymbl__engine_retain(nymbl_engine *engine);
void nymbl__engine_release(nymbl_engine *engine);
/* All that can be done without waiting, then one wait, then that again. */
void nymbl__engine_pass(nymbl_engine *engine, double timeout);
/* Queue a command and see that it is taken. */
void nymbl__engine_command(nymbl_engine *engine, nymbl_transfer *transfer,
                           unsigned command);
/* Queue one under the lock; nymbl__engine_wake() must follow after it. */
void nymbl__engine_queue(nymbl_engine *engine, nymbl_transfer *transfer,
                         unsigned command);
/* See that queued commands are taken. */
void nymbl__engine_wake(nymbl_engine *engine);
/* A transfer has ended: out of the lists. */
void nymbl__engine_forget(nymbl_engine *engine, nymbl_transfer *transfer);
/* Signal the owner of a transfer. */
void nymbl__engine_news(nymbl_engine *engine, nymbl_transfer *transfer);
/* Cancel the transfers of a client that closes, and its connections. */
void nymbl__engine_drop(nymbl_engine *engine, nymbl_client *client);

/* ---- connections.c ---- */

/* Have a multi handle, in the place of the one that is there. */
nymbl_kind nymbl__connections_open(nymbl_engine *engine);
void nymbl__connections_close(nymbl_engine *engine);
CURL *nymbl__engine_handle(nymbl_engine *engine);
void nymbl__engine_handle_return(nymbl_engine *engine, CURL *easy);

/* ---- quirks.c ---- */

/* Whether this libcurl must not use an easy handle for a second exchange, not
 * even for the next hop of a redirect (before 8.20.0). Decided at run time. */
bool nymbl__handles_serve_once(void);

/* ---- thread.c ---- */

/* The lock stands between the owner of a transfer and whoever pumps. While they
 * are one thread it does nothing. Nothing that can call back or wait for long
 * is done while it is held. */
void nymbl__engine_lock(nymbl_engine *engine);
void nymbl__engine_unlock(nymbl_engine *engine);
nymbl_kind nymbl__thread_init(nymbl_engine *engine);
void nymbl__thread_destroy(nymbl_engine *engine);
/* Wait for news of the thread's. */
void nymbl__thread_wait(nymbl_engine *engine, double timeout);
/* End it, if there is one: whoever calls pumps from now on. */
void nymbl__thread_stop(nymbl_engine *engine);

/* ---- lease.c ---- */

/* Collect what the engine polls beside libcurl's sockets. Returns whether the
 * listener is left out, for want of descriptors. */
bool nymbl__leases_poll(nymbl_engine *engine);
/* Take in who has connected; cancel transfers whose lease has ended. */
void nymbl__leases_serve(nymbl_engine *engine);
/* Wake whoever holds the other end, if there is one. */
void nymbl__lease_wake(const nymbl_transfer *transfer);
/* No more news: close this end. */
void nymbl__lease_end(nymbl_transfer *transfer);
void nymbl__leases_close(nymbl_engine *engine);

/* ---- sockets.c ---- */

/* libcurl's callback to open a socket. */
curl_socket_t nymbl__socket_open(void *payload, curlsocktype purpose,
                                 struct curl_sockaddr *address);
/* libcurl's callback for a new socket, with the transfer as payload. */
int nymbl__socket_made(void *payload, curl_socket_t fd, curlsocktype purpose);
/* The same for one that it is through with, with the engine as payload. */
int nymbl__socket_closed(void *payload, curl_socket_t fd);
/* Whether the connection from this port is known, and has no bytes on it. */
bool nymbl__sockets_are_silent(const nymbl_engine *engine, int port);
/* End the connections to where no open client goes. */
void nymbl__sockets_drop(nymbl_engine *engine);

/* ---- transfer.c ---- */

typedef enum nymbl__operation {
    NYMBL__TOKEN,
    NYMBL__UPLOAD,
    NYMBL__LIST,
    NYMBL__GET,
    NYMBL__DOWNLOAD,
    NYMBL__DELETE,
} nymbl__operation;

/* A request as data: made where a call starts, read where it is pumped. */
typedef struct nymbl__request {
    nymbl__operation operation;
    char *url;
    char *form;                 /* body of a token request */
    char *proxy;                /* the client's, which forgets it */
    struct curl_slist *secrets; /* ends in `headers` */
    struct curl_slist *headers;
    nymbl__form fields;
    bool expect_continue;
} nymbl__request;

/* Head of the reply at hand. */
typedef struct nymbl__reply_head {
    size_t bytes; /* of all heads of the transfer */
    int status;
    bool done;
    bool chunked;
    bool has_type;
    bool encoded;
    bool limit_exceeded;     /* x-amzn-ErrorType says so */
    int64_t length;          /* Content-Length, or -1 */
    int64_t remapped_length; /* x-amzn-Remapped-Content-Length, or -1 */
    double retry_after;
    time_t retry_date; /* Retry-After as a date, until the head's end; or -1 */
    int64_t range_start; /* of Content-Range, or -1 */
    int64_t range_total;
    char content_type[NYMBL__TYPE_MAX];
    char etag[NYMBL__VALIDATOR_MAX];
    char modified[NYMBL__VALIDATOR_MAX]; /* Last-Modified */
    char date[NYMBL__VALIDATOR_MAX];
    char *location;
    int field; /* of the last line: head.c */
} nymbl__reply_head;

/* Three kinds of fields: those that are set before the start and only read
 * after it; those of whoever pumps; and those that both sides use, which are
 * under the engine's lock or atomic. */
struct nymbl_transfer {
    atomic_int references; /* its owner, the engine, the queue */
    nymbl_engine *engine;
    nymbl_client *client;
    bool progress; /* bytes that move are news */
    bool has_size;
    int64_t size;                     /* of the document */
    char known_type[NYMBL__TYPE_MAX]; /* of the document, or "" */

    /* under the lock */
    unsigned commands;
    nymbl_transfer *next_command;
    nymbl_kind cancel_kind; /* why it is to be removed, or NYMBL_OK */
    const char *cancel_reason;
    nymbl__ring window;
    bool receive_paused; /* these two are written by the pump alone */
    bool send_paused;
    int64_t confirmed; /* received bytes that the owner knows of, or -1 */
    bool signaled;
    double alarm;     /* when the owner wants to be woken; 0: not */
    double watch;     /* when it must have been heard of again; 0: need not */
    bool missed;      /* it was not, and gets a last chance */
    int lease;        /* this end of it, or -1 */
    bool lease_loose; /* its other end was given back: no cancel */
    char lease_token[NYMBL__LEASE_TOKEN]; /* "" where none is awaited */
    bool head_told;                       /* `told` is good, and stays so */
    nymbl_head told;
    bool ended; /* `error`, `reply`, `body_sent` are good, and stay so */
    nymbl_error error;

    atomic_bool sent;     /* a request went out, or part of one */
    atomic_bool released; /* the first bytes were found good */
    _Atomic int64_t hop_received;
    _Atomic int64_t resumed_from; /* bytes of a part the reply goes on from */

    /* of whoever pumps: the engine's lists */
    nymbl_transfer *previous, *next;
    bool is_running;
    bool is_waiting;

    nymbl__request request;
    nymbl_body *body; /* under the lock too: set to NULL at the end */
    nymbl__save *save;

    /* the exchange on the wire */
    CURL *easy;
    curl_mime *mime;
    bool sent_this_hop; /* as `sent`, for this hop of a redirect */
    bool foreign;       /* the origin has changed: no credentials */
    bool fresh;         /* only a new connection will do */
    int hops;
    nymbl__reply_head head;
    char told_type[NYMBL__TYPE_MAX];
    nymbl__buffer reply;
    char sniff[NYMBL__SNIFF];
    size_t sniffed;
    int64_t body_sent; /* of a body that was let go */
    bool range_asked;  /* of a part's rest */
    bool parked;       /* found good, and waits to be confirmed */
    bool dirty;

    /* time limits: seconds polled */
    bool moved;
    int64_t moved_up;
    double connect_time, idle_time, reply_time;

    /* how it ends */
    nymbl_kind failing; /* why a callback ended it */
    const char *failing_reason;
    bool cut;         /* by a callback that has seen enough of the body */
    bool end_told;    /* TLS has told the end of a body without length */
    int proxy_status; /* with which a proxy refused it, or 0 */
    bool spoilt;      /* nothing sent: the connection had bytes on it already */
    bool over;        /* it is ending, or has ended */
    char errors[CURL_ERROR_SIZE];
};

nymbl_kind nymbl__transfer_new(nymbl_transfer **out, nymbl_engine *engine,
                               nymbl_client *client, nymbl_error *err);
/* Drop a reference. */
void nymbl__transfer_release(nymbl_transfer *transfer);
/* Put it on the wire. Ends it on failure. */
void nymbl__transfer_begin(nymbl_transfer *transfer);
/* libcurl is through with it. May begin a redirect's next hop. */
void nymbl__transfer_complete(nymbl_transfer *transfer, CURLcode code);
/* End it now with a failure of ours, wherever it is. */
void nymbl__transfer_abort(nymbl_transfer *transfer, nymbl_kind kind,
                           const char *reason);
void nymbl__transfer_unpause(nymbl_transfer *transfer);
/* Its owner knows of more bytes: a parked one may end. */
void nymbl__transfer_confirmed(nymbl_transfer *transfer);
/* For callbacks: remember why, so that the exchange ends with it. */
void nymbl__transfer_failing(nymbl_transfer *transfer, nymbl_kind kind,
                             const char *reason);
/* Count what moves: the owner is told after this pass. */
void nymbl__transfer_moved(nymbl_transfer *transfer);
/* The head of the reply is good: let the owner see it. */
void nymbl__transfer_head_tell(nymbl_transfer *transfer);

/* ---- limits.c ---- */

/* Charge polled time; give the seconds until a limit runs out. */
void nymbl__transfer_charge(nymbl_transfer *transfer, double seconds);
double nymbl__transfer_left(const nymbl_transfer *transfer);
/* End it where a limit has run out. */
void nymbl__transfer_enforce(nymbl_transfer *transfer);

/* ---- verdict.c ---- */

/* The final head is complete: see whether its body is wanted. */
void nymbl__verdict_head(nymbl_transfer *transfer);
bool nymbl__verdict_is_success(const nymbl_transfer *transfer);
bool nymbl__verdict_is_redirect(int status);
/* Whether the rest of a part was asked for, and the status may be because of
 * that: the whole document may be had all the same. */
bool nymbl__verdict_refuses_range(const nymbl_transfer *transfer);
/* Bytes of the body that the head promises, or -1. */
int64_t nymbl__verdict_length(const nymbl__reply_head *head);
/* Look at the first bytes before anybody gets them; `all`: there are no more.
 */
void nymbl__verdict_first_bytes(nymbl_transfer *transfer, bool all);
/* How an exchange that libcurl is through with has ended. */
nymbl_kind nymbl__verdict(nymbl_transfer *transfer, CURLcode code,
                          const char **reason);
/* Whether the upload or delete may have been carried out although it failed. */
bool nymbl__verdict_is_unknown(const nymbl_transfer *transfer, nymbl_kind kind);

/* ---- sniff.c ---- */

/* The first bytes of a document, and what is known of it. */
typedef struct nymbl__look {
    const char *known; /* the document's media type, or "" */
    const char *given; /* the response's, or "" */
    bool has_size;     /* the document's size is known, and will be compared */
    bool has_length;   /* so is the size, or the response's length */
    bool encoded;      /* the response has a Content-Encoding */
    const char *bytes;
    size_t size; /* NYMBL__SNIFF at most */
    bool all;    /* nothing comes behind them */
} nymbl__look;

/* Why the types contradict each other, or NULL. */
const char *nymbl__sniff_type(const char *known, const char *given);
/* NYMBL_OK if it may be the document, NYMBL_WAIT if more bytes must be seen, or
 * NYMBL_CORRUPT with a reason. */
nymbl_kind nymbl__sniff(const nymbl__look *look, const char **reason);
/* Whether the head alone does not speak against the document; its bytes are
 * not looked at. */
bool nymbl__sniff_is_clear(const nymbl__look *look);
/* Whether text begins as a JSON object or array. */
bool nymbl__sniff_is_json(const char *bytes, size_t size);

/* Bytes that can be looked at before they are sent. */
typedef struct nymbl__view {
    /* Copy bytes from a position on; fewer only at the end. */
    size_t (*read)(void *payload, int64_t at, void *buf, size_t cap);
    void *payload;
    int64_t size;
    bool whole; /* nothing comes behind them */
} nymbl__view;

/* A ZIP file of which more must be seen before it is known what it is. */
#define NYMBL__ZIP "application/zip"

/* The accepted type that the bytes are of, or NYMBL__ZIP; "" if they are of
 * none, NULL if too few of them can be seen. */
const char *nymbl__sniff_view(const nymbl__view *view);
/* Whether they may be of a media type, as far as can be seen. */
bool nymbl__sniff_is_type(const nymbl__view *view, const char *type);

/* ---- head.c ---- */

/* libcurl's header callback. */
size_t nymbl__head_line(char *data, size_t size, size_t count, void *payload);
void nymbl__head_reset(nymbl__reply_head *head);
/* Whether text is exactly what RFC 9110 allows in If-Range: a strong entity-tag
 * (section 8.8.3) or an HTTP-date (5.6.7). A validator from a server or a file
 * must pass this check before it is sent. */
bool nymbl__is_validator(const char *text);
/* A validator strong enough to go on under (RFC 9110, section 8.8), or NULL. */
const char *nymbl__head_validator(const nymbl__reply_head *head);

/* ---- request.c ---- */

void nymbl__request_free(nymbl__request *request);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
