/* SPDX-License-Identifier: MIT */
/**
 * @file nymbl.h
 * @brief Documents of the Nymbl Customer API: upload, list, get, download,
 * delete.
 *
 * Ownership, in three sentences. What comes through `out` is yours to release.
 * What a getter returns is borrowed: it belongs to its object and lives as
 * long. Every object retains what it needs, so objects may be released in any
 * order.
 *
 * Strings that go in are copied before a function returns. Times are seconds.
 * Nothing here waits but nymbl_engine_pump() and nymbl_transfer_wait(), and
 * nothing calls back into the caller but the engine's clock. One engine and all
 * that was started on it belong to one thread at a time;
 * nymbl_engine_start_thread() adds a thread of its own to it, which none of its
 * users sees.
 *
 * A call is made in four steps: a `nymbl_*_start` function makes a transfer,
 * nymbl_engine_pump() moves it, nymbl_transfer_result() tells how it ended, and
 * nymbl_transfer_free() releases it (and cancels it where it still runs).
 */
#ifndef NYMBL_H
#define NYMBL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(NYMBL_STATIC)
#define NYMBL_API
#else
#define NYMBL_API __attribute__((visibility("default")))
#endif

#define NYMBL_VERSION "0.1.0"

/** Largest document the service takes (the guide, "File Size Limit"). */
#define NYMBL_MAX_UPLOAD_BYTES 26214400

/**
 * How a call ended. Zero is success, negative is failure, positive is "nothing
 * failed, but": so `kind < 0` is the one test for failure.
 *
 * "Any failure of an exchange" in the comments below means any of the negative
 * kinds but NYMBL_MISUSE.
 */
typedef enum nymbl_kind {
    NYMBL_OK = 0,
    NYMBL_DONE = 1,  /**< no more will come */
    NYMBL_AGAIN = 2, /**< not yet: pump, then ask again */

    NYMBL_BAD_REQUEST = -1,  /**< 400 */
    NYMBL_UNAUTHORIZED = -2, /**< 401 */
    NYMBL_FORBIDDEN = -3,    /**< 403 */
    NYMBL_NOT_FOUND = -4,    /**< 404 */
    NYMBL_TOO_LARGE = -5,    /**< 413, or over the limit before it is sent */
    NYMBL_UNSUPPORTED_TYPE = -6, /**< 415, or not an accepted type */
    NYMBL_THROTTLED = -7,        /**< 429 */
    NYMBL_QUOTA = -8,            /**< 429 "Limit Exceeded" */
    NYMBL_SERVER = -9,           /**< 5xx */
    NYMBL_HTTP = -10,            /**< any other status */
    NYMBL_TIMEOUT = -11,         /**< a time limit ran out */
    NYMBL_NETWORK = -12,         /**< resolve, connect, reset */
    NYMBL_TLS = -13,             /**< no verified TLS connection */
    NYMBL_TRUNCATED = -14,       /**< fewer bytes than promised */
    NYMBL_CORRUPT = -15,         /**< not the document: bytes, size, type */
    NYMBL_PROTOCOL = -16,        /**< a reply that makes no sense */
    NYMBL_REDIRECT = -17,        /**< a redirect that is not followed */
    NYMBL_IO = -18,              /**< a local file */
    NYMBL_CONTEXT = -19,         /**< nothing may wait here */
    NYMBL_CANCELED = -20,        /**< by the caller */

    NYMBL_NO_MEMORY = -21,
    NYMBL_MISUSE = -22 /**< a wrong argument; `reason` names it */
} nymbl_kind;

/**
 * What is known of a failure. Flat and of fixed size: nothing to release.
 *
 * Every function that takes one takes NULL too, and writes it on failure only.
 * No field holds anything of the request or the reply but the status.
 */
typedef struct nymbl_error {
    nymbl_kind kind;
    int status;           /**< HTTP status of the reply, or of the proxy that
                               refused (reason "proxy", "proxy_auth"); 0: none */
    const char *reason;   /**< a fixed word for the cause, or NULL; static */
    double retry_after;   /**< seconds, from Retry-After (a date is compared
                               with the response's own Date, if there is one);
                               negative: not given */
    bool outcome_unknown; /**< the upload or delete may have happened */
} nymbl_error;

/** Bytes of a JSON response to a call. One that is longer is NYMBL_PROTOCOL,
 * "response_too_long". */
#define NYMBL_RESPONSE_MAX (2u << 20)

/** Values in a JSON response that a decoder should accept: arrays and objects
 * count, names of members do not. More cost a multiple of their bytes. */
#define NYMBL_RESPONSE_MAX_VALUES 20000

typedef struct nymbl_engine nymbl_engine;
typedef struct nymbl_client nymbl_client;
typedef struct nymbl_body nymbl_body;
typedef struct nymbl_transfer nymbl_transfer;
typedef struct nymbl_store nymbl_store;

/* ---- kinds ---- */

/**
 * The word of a kind, as in "not_found".
 *
 * @param kind any kind
 * @return static text, never NULL
 */
NYMBL_API const char *nymbl_kind_name(nymbl_kind kind);

/**
 * What a kind means and what to do next, as half a sentence of fixed words.
 *
 * @param kind any kind
 * @return static text, never NULL; "" where there is nothing to say
 */
NYMBL_API const char *nymbl_kind_text(nymbl_kind kind);

/**
 * Objects that are alive in this process: clients, bodies, transfers and
 * stores.
 *
 * For leak checks: 0 once everything was released and pumped out.
 *
 * @return the count
 */
NYMBL_API long nymbl_object_count(void);

/**
 * Whether functions of another TLS library have taken the place of those that
 * libcurl was linked with, so that a connection would crash. Look once, before
 * the first transfer; the only libcurl function called is curl_version_info().
 * On Linux with glibc every function is looked at that libcurl and its TLS
 * library refer to, elsewhere a few.
 *
 * @return NULL if all is well, else static text that names both libraries and
 *         one of the functions, and says what to install
 */
NYMBL_API const char *nymbl_tls_problem(void);

/* ---- engine ---- */

/** Settings of an engine. Zero means default. */
typedef struct nymbl_engine_options {
    /** Seconds on a clock that never goes back; default CLOCK_MONOTONIC. Called
     * from the engine's thread too, where it has one. */
    double (*clock)(void *payload);
    void *payload; /**< borrowed, handed to @p clock */
} nymbl_engine_options;

/**
 * Make an engine: connections, and the loop that moves transfers.
 *
 * One for a process and thread is right: clients share its connections.
 *
 * Descriptors 0 to 2 never become a file or socket of ours. While an engine is
 * pumped, those that the program has closed are occupied by something that can
 * be neither read nor written, for libcurl's sake.
 *
 * @param[out] out     yours to release with nymbl_engine_free()
 * @param      options copied; NULL for defaults
 * @param[out] err     NYMBL_NO_MEMORY; NYMBL_IO, "too_many_files", if no
 *                     descriptor is left
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_engine_new(nymbl_engine **out,
                                      const nymbl_engine_options *options,
                                      nymbl_error *err);

/**
 * Cancel all that runs on an engine and close its connections.
 *
 * Transfers outlive it, as canceled. In a process forked from the one that made
 * the engine this frees nothing: the sockets are the parent's.
 *
 * @param engine may be NULL
 */
NYMBL_API void nymbl_engine_free(nymbl_engine *engine);

/**
 * Make progress: send, receive, finish, then wait for the network once.
 *
 * Returns as soon as any transfer has news, else after @p timeout. Where the
 * engine has a thread this only waits for news.
 *
 * @param engine  of this process
 * @param timeout seconds to wait at most; 0 only looks
 * @return NYMBL_OK, or NYMBL_MISUSE in a forked process
 */
NYMBL_API nymbl_kind nymbl_engine_pump(nymbl_engine *engine, double timeout);

/**
 * Have a thread of the engine's own move its transfers from now on.
 *
 * For a host that must not wait for the network: no function but the two that
 * wait then takes longer than a copy of the bytes. What cancels, closes or
 * frees has its effect a moment after it has returned. All signals are blocked
 * in the thread. It ends in nymbl_engine_free().
 *
 * @param      engine of this process; one that has a thread keeps it
 * @param[out] err    NYMBL_IO, "too_many_threads", if none can be started; or
 *                    NYMBL_MISUSE in a forked process
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_engine_start_thread(nymbl_engine *engine,
                                               nymbl_error *err);

/**
 * Whether this engine was made by the running process (and not by its parent).
 *
 * @param engine may be NULL, which gives false
 * @return true where it may be used
 */
NYMBL_API bool nymbl_engine_in_this_process(const nymbl_engine *engine);

/**
 * Whether nothing is started on an engine that its owner pumps, so that freeing
 * it cancels nothing.
 *
 * @param engine any
 * @return false for one with a thread
 */
NYMBL_API bool nymbl_engine_is_idle(const nymbl_engine *engine);

/**
 * The engine's clock.
 *
 * @param engine any; NULL for the clock that engines have by default
 * @return seconds
 */
NYMBL_API double nymbl_engine_now(const nymbl_engine *engine);

/* ---- client ---- */

/** Settings of a client. Zero means default. All strings are copied. */
typedef struct nymbl_client_options {
    const char *base_url; /**< required: https://host[:port][/prefix] */
    const char *api_key;  /**< required: the x-api-key header */
    /** OAuth 2.0 client credentials (RFC 6749, section 4.4); all or none. */
    const char *token_url;
    const char *client_id;
    const char *client_secret;
    const char *scope;        /**< optional */
    const char *ca_file;      /**< PEM file of trusted certificates; system's */
    const char *ca_path;      /**< folder of the same; none */
    const char *proxy;        /**< http, https or socks…, as libcurl takes it;
                                   "" for none; the environment's */
    const char *user_agent;   /**< appended to the library's own */
    double connect_timeout;   /**< seconds until a connection stands; 10 */
    double stall_timeout;     /**< seconds without a byte moving; 30 */
    int64_t max_upload_bytes; /**< NYMBL_MAX_UPLOAD_BYTES */
    int max_connections;      /**< transfers on the wire at once; 16 */
    bool allow_http;          /**< let URLs be http:// on a loopback address */
} nymbl_client_options;

/**
 * Whether a URL may be a base or token URL: https, or http on a loopback
 * address where that is allowed, with a host in ASCII, and without user, query
 * and fragment.
 *
 * @param url        any text
 * @param allow_http whether http is allowed on a loopback address
 * @return NULL where it may, else static words such as "must begin with
 *         https://"
 */
NYMBL_API const char *nymbl_url_problem(const char *url, bool allow_http);

/**
 * Make a client: where the service is, and with which secrets. Sends nothing.
 *
 * @param[out] out     yours to release with nymbl_client_free()
 * @param      options copied; secrets are wiped when the client is closed
 * @param[out] err     NYMBL_MISUSE with the option's name as reason;
 *                     NYMBL_TLS, reason "ca_file" or "ca_path", if there is
 *                     nothing that can be read; or NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_client_new(nymbl_client **out,
                                      const nymbl_client_options *options,
                                      nymbl_error *err);

/**
 * Cancel what runs for a client, forget its secrets and, where no other client
 * of the engine is open, close the connections. Later starts are NYMBL_MISUSE.
 * The engine is the one that it last started a transfer on: what runs for it on
 * another one goes on.
 *
 * @param client may be NULL, or closed
 */
NYMBL_API void nymbl_client_close(nymbl_client *client);

/**
 * Release a client. Transfers that run keep what they need of it.
 *
 * @param client may be NULL
 */
NYMBL_API void nymbl_client_free(nymbl_client *client);

/**
 * The limit on uploads of this client.
 *
 * @param client any
 * @return bytes
 */
NYMBL_API int64_t nymbl_client_max_upload_bytes(const nymbl_client *client);

/** What clients share who are of one account. */
typedef enum nymbl_account {
    NYMBL_ACCOUNT_LIMITS, /**< rates and quota: base URL and API key */
    NYMBL_ACCOUNT_TOKEN /**< a token: token URL, client id, secret and scope */
} nymbl_account;

/**
 * A name for the account of a client that tells nothing of it: a SHA-256 in 64
 * hexadecimal digits. The same for every client of that account.
 *
 * @param      client any open one
 * @param      which  what is shared
 * @param[out] out    65 bytes
 * @return NYMBL_OK, or NYMBL_MISUSE where the client is closed or has no
 *         credentials
 */
NYMBL_API nymbl_kind nymbl_client_account(const nymbl_client *client,
                                          nymbl_account which, char *out);

/* ---- bodies: what an upload sends ---- */

/**
 * A body read from a file, in the core, each time it is sent.
 *
 * The path must name a regular file (links are followed). It is opened here. If
 * its size or times have changed when its last block is to be sent, the upload
 * is cut: NYMBL_IO, "changed". A file that reports a size of 0 is read here,
 * since it may have content all the same (those of /proc do).
 *
 * @param[out] out  yours to release with nymbl_body_free()
 * @param      path of the file
 * @param[out] err  NYMBL_IO; NYMBL_TOO_LARGE if a file that reports a size of 0
 *                  has more than NYMBL_MAX_UPLOAD_BYTES; NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_body_from_path(nymbl_body **out, const char *path,
                                          nymbl_error *err);

/**
 * A body of bytes in memory.
 *
 * @param[out] out  yours to release with nymbl_body_free()
 * @param      data copied
 * @param      size bytes
 * @param[out] err  NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_body_from_bytes(nymbl_body **out, const void *data,
                                           size_t size, nymbl_error *err);

/**
 * A body that the caller pushes piece by piece with nymbl_body_write().
 *
 * Where @p size is negative, up to 1 MB is held back to learn it; a longer body
 * goes out in chunks (RFC 9112, section 7.1).
 *
 * @param[out] out  yours to release with nymbl_body_free()
 * @param      size bytes that will be pushed; negative: unknown
 * @param[out] err  NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_body_stream(nymbl_body **out, int64_t size,
                                       nymbl_error *err);

/**
 * Limit a pushed body before a transfer sends it, so that its source is not
 * read any further. A longer body is not sent: NYMBL_TOO_LARGE.
 *
 * @param body a pushed body
 * @param max  bytes
 */
NYMBL_API void nymbl_body_limit(nymbl_body *body, int64_t max);

/**
 * How much of its source a pushed body can still take: what is left of its
 * stated size, or of its limit if that is less.
 *
 * @param body a pushed body
 * @return bytes; INT64_MAX if neither is known
 */
NYMBL_API int64_t nymbl_body_remaining(const nymbl_body *body);

/**
 * Push bytes into the send window of a pushed body. Never waits.
 *
 * @param      body  a pushed body that is not finished
 * @param      data  copied
 * @param      size  bytes
 * @param[out] taken how many of them were taken
 * @return NYMBL_OK where all were taken, NYMBL_AGAIN where the window is full,
 *         NYMBL_DONE where the transfer takes no more (its result says why),
 *         NYMBL_MISUSE on a finished body
 */
NYMBL_API nymbl_kind nymbl_body_write(nymbl_body *body, const void *data,
                                      size_t size, size_t *taken);

/**
 * Say that a pushed body is copied out of a file, before its first byte is
 * read. nymbl_body_finish() then sees whether the file was rewritten meanwhile:
 * in that case the upload is cut, NYMBL_IO, "changed".
 *
 * @param body a pushed body; nothing is done with others
 * @param fd   borrowed until nymbl_body_finish(); nothing is done if it is no
 *             regular file
 */
NYMBL_API void nymbl_body_set_source(nymbl_body *body, int fd);

/**
 * Room in the send window of a pushed body.
 *
 * @param body any
 * @return bytes that nymbl_body_write() would take now
 */
NYMBL_API size_t nymbl_body_room(const nymbl_body *body);

/**
 * Say that a pushed body is complete. Fewer bytes than its stated size cut the
 * upload: NYMBL_IO, "size_mismatch"; see also nymbl_body_set_source().
 *
 * @param body a pushed body
 */
NYMBL_API void nymbl_body_finish(nymbl_body *body);

/**
 * Whether a transfer can be started now: a pushed body of unknown size must
 * first be finished or have filled its 1 MB.
 *
 * @param body any
 * @return true when it can
 */
NYMBL_API bool nymbl_body_is_ready(const nymbl_body *body);

/**
 * Whether the body can be sent (again) from its first byte by the core alone.
 *
 * @param body any
 * @return true for paths and bytes, and for pushed bodies of which nothing was
 *         taken for the wire
 */
NYMBL_API bool nymbl_body_can_rewind(const nymbl_body *body);

/**
 * The type that the bytes of a body are of, as far as they can be looked at
 * before they are sent: all of a path or of bytes, and of a pushed body what
 * is in its window. A few KB are read at most, and the names of a ZIP file's
 * entries.
 *
 * @param body any
 * @return static text: the media type, if it is one that the service accepts
 *         (PDF, PNG, JPEG, TIFF, DOCX); "" if the bytes are of none of them;
 *         NULL if that cannot be said, because too few were pushed or the body
 *         cannot be sent
 */
NYMBL_API const char *nymbl_body_type(nymbl_body *body);

/**
 * Whether the bytes of a body may be of a type, by the same look.
 *
 * @param body         any
 * @param content_type media type; parameters do not count
 * @return false if they are of another type, or of none that is accepted; true
 *         if they are of that type, or if it cannot be said
 */
NYMBL_API bool nymbl_body_is_type(nymbl_body *body, const char *content_type);

/**
 * Size of the body.
 *
 * @param body any
 * @return bytes, or -1 where it is not known
 */
NYMBL_API int64_t nymbl_body_size(const nymbl_body *body);

/**
 * Release a body. A transfer that sends it keeps it.
 *
 * @param body may be NULL
 */
NYMBL_API void nymbl_body_free(nymbl_body *body);

/* ---- the six calls ---- */

/**
 * Start asking for an access token (RFC 6749, section 4.4.2). The reply's body
 * is the token endpoint's JSON.
 *
 * @param[out] out    yours to release with nymbl_transfer_free()
 * @param      engine that will move it
 * @param      client with credentials
 * @param[out] err    NYMBL_MISUSE, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_token_start(nymbl_transfer **out,
                                       nymbl_engine *engine,
                                       nymbl_client *client, nymbl_error *err);

/** What goes with an uploaded file (the guide, "Uploading a Document"). */
typedef struct nymbl_upload_options {
    const char *file_name;     /**< required */
    const char *content_type;  /**< required */
    const char *document_type; /**< optional */
    const char *description;   /**< optional */
    /** The caller can push a pushed body again, if need be. Otherwise it is
     * announced with `Expect: 100-continue`, to which 417 may be the answer:
     * then nothing of it is taken, and it can be sent again with this set, if
     * nymbl_body_can_rewind(). */
    bool is_rewindable;
    bool progress; /**< bytes that move are news */
} nymbl_upload_options;

/**
 * Start `POST /Patients({id})/Documents`. The reply's body is the document's
 * JSON.
 *
 * The request goes out once, on a new connection whose TLS session is resumed:
 * a used one may be closing, and then the outcome would be unknown. Whether it
 * may be repeated is the caller's decision, by `outcome_unknown` and
 * nymbl_body_can_rewind().
 *
 * @param[out] out     yours to release with nymbl_transfer_free()
 * @param      engine  that will move it
 * @param      client  any open one
 * @param      token   bearer token, copied and wiped
 * @param      patient id, percent-encoded here
 * @param      body    retained; must be ready and not in use by a live transfer
 * @param      options copied
 * @param[out] err     NYMBL_TOO_LARGE before anything is sent, NYMBL_IO where
 *                     the body cannot be rewound, NYMBL_BAD_REQUEST where the
 *                     id is too long for a URL, NYMBL_MISUSE, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_upload_start(nymbl_transfer **out,
                                        nymbl_engine *engine,
                                        nymbl_client *client, const char *token,
                                        const char *patient, nymbl_body *body,
                                        const nymbl_upload_options *options,
                                        nymbl_error *err);

/** OData query of a listing. NULL and 0 are left out. */
typedef struct nymbl_list_options {
    const char *filter;
    const char *select;
    const char *orderby;
    int64_t top;
    int64_t skip;
    bool count; /**< `$count=true` */
    /** `@odata.nextLink` of the page before, in place of all the above. */
    const char *next_link;
} nymbl_list_options;

/**
 * Start `GET /Patients({id})/Documents`. The reply's body is the page's JSON.
 *
 * @param[out] out     yours to release with nymbl_transfer_free()
 * @param      engine  that will move it
 * @param      client  any open one
 * @param      token   bearer token, copied and wiped
 * @param      patient id, percent-encoded here
 * @param      options copied; values are percent-encoded here
 * @param[out] err     NYMBL_REDIRECT where `next_link` leaves the service's
 *                     origin, NYMBL_PROTOCOL where it is too long,
 *                     NYMBL_BAD_REQUEST where the id or the query is,
 *                     NYMBL_MISUSE, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_list_start(nymbl_transfer **out,
                                      nymbl_engine *engine,
                                      nymbl_client *client, const char *token,
                                      const char *patient,
                                      const nymbl_list_options *options,
                                      nymbl_error *err);

/**
 * Start `GET /Patients({id})/Documents({document})`. The reply's body is the
 * document's JSON.
 *
 * @param[out] out      yours to release with nymbl_transfer_free()
 * @param      engine   that will move it
 * @param      client   any open one
 * @param      token    bearer token, copied and wiped
 * @param      patient  id, percent-encoded here
 * @param      document id, percent-encoded here
 * @param[out] err      NYMBL_BAD_REQUEST where an id is too long for a URL,
 *                      NYMBL_MISUSE, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_get_start(nymbl_transfer **out, nymbl_engine *engine,
                                     nymbl_client *client, const char *token,
                                     const char *patient, const char *document,
                                     nymbl_error *err);

/** Where a download goes, and what is known of the document. */
typedef struct nymbl_download_options {
    /** A file to replace as a whole; NULL: read with nymbl_transfer_read(). */
    const char *path;
    unsigned mode;     /**< of the new file, if it can have one; 0600 */
    bool no_overwrite; /**< fail where @p path exists, also at the end */
    /**
     * Keep an interrupted part beside the path, and go on from it next time
     * under the validator that was saved with it (RFC 9110, section 13.1.5),
     * if the client has the same base URL, API key, token URL, client id and
     * scope, and patient and document are the same. If that is refused (the
     * reason is then "range_refused" or "content_range") the part is gone, and
     * another transfer begins from the first byte.
     */
    bool resume;
    const char *content_type; /**< of the document, where known */
    bool has_size;            /**< whether @p size is known */
    int64_t size;             /**< bytes of the document */
    /** Bytes that move are news, and the file at @p path gets its name only
     * once nymbl_transfer_confirm() was told of the last of them. */
    bool progress;
} nymbl_download_options;

/**
 * Whether a path can be the target of a download: no directory or device, no
 * name of a descriptor such as /dev/stdout, no way over a link that a stranger
 * has put into a directory such as /tmp, no name that files have before they
 * are whole (".nymbl-tmp-…", "….nymbl-part", "….nymbl-meta"), and in a
 * directory in which a file can be made. Leaves nothing there; what a killed
 * process has left is removed.
 *
 * @param      path         of the file
 * @param      no_overwrite whether it must not exist
 * @param[out] err          NYMBL_IO, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_path_check(const char *path, bool no_overwrite,
                                      nymbl_error *err);

/**
 * Start `GET /Patients({id})/Documents({document})/$value`.
 *
 * Redirects are followed here: a few, to https only, and without credentials
 * once the origin has changed. The bytes are held against the reply's length,
 * the document's size and its type before the end is told. If neither size nor
 * type is known, the reply's type or its first bytes must be of a type that the
 * service accepts. No byte can be read before the first ones were checked.
 *
 * @param[out] out      yours to release with nymbl_transfer_free()
 * @param      engine   that will move it
 * @param      client   any open one
 * @param      token    bearer token, copied and wiped
 * @param      patient  id, percent-encoded here
 * @param      document id, percent-encoded here
 * @param      options  copied; NULL for none
 * @param[out] err      NYMBL_IO where the target cannot be written,
 *                      NYMBL_BAD_REQUEST where an id is too long for a URL,
 *                      NYMBL_MISUSE, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_download_start(
    nymbl_transfer **out, nymbl_engine *engine, nymbl_client *client,
    const char *token, const char *patient, const char *document,
    const nymbl_download_options *options, nymbl_error *err);

/**
 * Start `DELETE /Patients({id})/Documents({document})`.
 *
 * @param[out] out      yours to release with nymbl_transfer_free()
 * @param      engine   that will move it
 * @param      client   any open one
 * @param      token    bearer token, copied and wiped
 * @param      patient  id, percent-encoded here
 * @param      document id, percent-encoded here
 * @param[out] err      NYMBL_BAD_REQUEST where an id is too long for a URL,
 *                      NYMBL_MISUSE, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_delete_start(nymbl_transfer **out,
                                        nymbl_engine *engine,
                                        nymbl_client *client, const char *token,
                                        const char *patient,
                                        const char *document, nymbl_error *err);

/* ---- transfers ---- */

/**
 * Whether something happened since a call last returned NYMBL_AGAIN: bytes to
 * read, room to write, a head, the end, or progress of a file.
 *
 * @param transfer any
 * @return true when it is worth asking again
 */
NYMBL_API bool nymbl_transfer_is_ready(nymbl_transfer *transfer);

/**
 * Pump until a transfer has news. For C programs; this is the one that waits.
 *
 * @param transfer any
 * @param timeout  seconds at most
 * @return NYMBL_OK, NYMBL_AGAIN when the time is up, NYMBL_MISUSE in a forked
 *         process
 */
NYMBL_API nymbl_kind nymbl_transfer_wait(nymbl_transfer *transfer,
                                         double timeout);

/** Head of the reply, as far as it matters. Borrowed strings. */
typedef struct nymbl_response {
    int status;
    int64_t content_length;   /**< bytes of the body; -1: not told */
    const char *content_type; /**< or NULL */
} nymbl_response;

/**
 * The final reply's head, once it is complete and was found good.
 *
 * @param      transfer any
 * @param[out] out      filled on NYMBL_OK
 * @param[out] err      the failure
 * @return NYMBL_OK, NYMBL_AGAIN, or any failure of an exchange
 */
NYMBL_API nymbl_kind nymbl_transfer_response(nymbl_transfer *transfer,
                                             nymbl_response *out,
                                             nymbl_error *err);

/**
 * Take bytes of the reply's body that have arrived.
 *
 * Never waits. Makes room in the receive window, so that the transfer goes on.
 *
 * @param      transfer a download without a path
 * @param[out] buf      at least @p cap bytes
 * @param      cap      how many at most
 * @param[out] got      bytes taken; 0 unless NYMBL_OK is returned
 * @param[out] err      the failure
 * @return NYMBL_OK, NYMBL_AGAIN when nothing is there yet, NYMBL_DONE at the
 *         verified end, or any failure of an exchange
 */
NYMBL_API nymbl_kind nymbl_transfer_read(nymbl_transfer *transfer, void *buf,
                                         size_t cap, size_t *got,
                                         nymbl_error *err);

/**
 * How the transfer ended. Never waits.
 *
 * A download without a path has not ended before its last byte was read.
 *
 * @param      transfer any
 * @param[out] err      the failure
 * @return NYMBL_OK, NYMBL_AGAIN, or any failure of an exchange
 */
NYMBL_API nymbl_kind nymbl_transfer_result(nymbl_transfer *transfer,
                                           nymbl_error *err);

/**
 * The reply's body where it was held in memory: JSON of a call, or what came
 * with an error status (cut at 64 KB).
 *
 * @param      transfer one that has ended
 * @param[out] size     bytes
 * @return borrowed bytes, NULL when there are none
 */
NYMBL_API const char *nymbl_transfer_body(const nymbl_transfer *transfer,
                                          size_t *size);

/** What went over the wire so far. */
typedef struct nymbl_counts {
    bool sent;             /**< whether the request began to go out */
    int64_t body_sent;     /**< bytes of the document given to the wire */
    int64_t body_received; /**< bytes of the reply's body */
    int64_t resumed_from;  /**< bytes of a part file the reply went on from */
} nymbl_counts;

/**
 * Count what was moved.
 *
 * @param      transfer any
 * @param[out] out      filled
 */
NYMBL_API void nymbl_transfer_counts(nymbl_transfer *transfer,
                                     nymbl_counts *out);

/**
 * Say that the bytes received so far are known to the owner, who goes on: the
 * last chance to cancel a download to a path that reports its progress.
 *
 * @param transfer any
 * @param received `body_received` of nymbl_transfer_counts() as it was looked
 * at
 */
NYMBL_API void nymbl_transfer_confirm(nymbl_transfer *transfer,
                                      int64_t received);

/**
 * Be woken at a time, as if there were news: for owners who wait on a lease or
 * a pair, and have no timer of their own.
 *
 * @param transfer any
 * @param at       on the engine's clock; 0: not
 */
NYMBL_API void nymbl_transfer_wake_at(nymbl_transfer *transfer, double at);

/**
 * Be given up: unless this is called again before a time, the transfer is
 * canceled a little later. For owners who ask for news again and again, as they
 * have neither lease nor pair, and may end without a word in between.
 *
 * @param transfer any
 * @param at       on the engine's clock; 0: it is not given up any more
 */
NYMBL_API void nymbl_transfer_watchdog(nymbl_transfer *transfer, double at);

/**
 * A stream socket on which a byte arrives when there is news, after NYMBL_AGAIN
 * was returned. Closing it cancels the transfer. Bytes are wake-ups, no counts:
 * read what is there and look again.
 *
 * @param      transfer any that has no lease or pair yet
 * @param[out] out      a descriptor, yours to close; non-blocking,
 *                      close-on-exec
 * @param[out] err      NYMBL_IO
 * @return NYMBL_OK, NYMBL_DONE where the transfer has ended and nothing is to
 *         be waited for, or the failure
 */
NYMBL_API nymbl_kind nymbl_transfer_notify_fd(nymbl_transfer *transfer,
                                              int *out, nymbl_error *err);

/**
 * Give the descriptor of nymbl_transfer_notify_fd() back, where the event loop
 * cannot take it: it is closed, and the transfer goes on. Another may be asked
 * for, soon after.
 *
 * @param transfer that it was given for
 * @param fd       closed
 */
NYMBL_API void nymbl_transfer_notify_fd_release(nymbl_transfer *transfer,
                                                int fd);

/** How to connect to a transfer. */
typedef struct nymbl_notify_socket {
    char path[64];  /**< of a Unix stream socket */
    char token[33]; /**< what to send first: 32 digits */
} nymbl_notify_socket;

/**
 * The same as nymbl_transfer_notify_fd() for hosts who can only wait for
 * sockets that they have connected themselves, such as nginx: connect to a
 * path, send a token. Only this process is let in, and each token once.
 *
 * @param      transfer any that has no lease or pair yet
 * @param[out] out      filled in
 * @param[out] err      NYMBL_IO
 * @return NYMBL_OK, NYMBL_DONE where the transfer has ended and nothing is to
 *         be waited for, or the failure
 */
NYMBL_API nymbl_kind nymbl_transfer_notify_socket(nymbl_transfer *transfer,
                                                  nymbl_notify_socket *out,
                                                  nymbl_error *err);

/**
 * End a transfer before its time. Its result becomes @p kind, with
 * `outcome_unknown` where the request may be carried out all the same. Does
 * nothing to one that has ended.
 *
 * @param transfer any
 * @param kind     NYMBL_CANCELED, NYMBL_TIMEOUT or NYMBL_IO
 * @param reason   static word for the error, or NULL
 */
NYMBL_API void nymbl_transfer_cancel(nymbl_transfer *transfer, nymbl_kind kind,
                                     const char *reason);

/**
 * Release a transfer, and cancel it where it runs.
 *
 * @param transfer may be NULL
 */
NYMBL_API void nymbl_transfer_free(nymbl_transfer *transfer);

/* ---- store: a small file that processes share ---- */

/** Largest content of a store; a file that holds more reads as empty. */
#define NYMBL_STORE_MAX 1048576

/** What is known of a process that holds the lock of a store. */
typedef struct nymbl_store_holder {
    /** The same for as long as the same one holds it and writes nothing. */
    uint64_t fingerprint;
    double since; /**< seconds since 1970 by the file's own time */
} nymbl_store_holder;

/**
 * Open a file that processes share, lock it and read it. Never waits.
 *
 * The file is made where there is none, with mode 0600; its folder is not. It
 * must be a regular one (no link) of this user, with no other name, that nobody
 * else can write to. Closed on exec. Between opening and closing there is to be
 * no wait.
 *
 * @param[out] out    yours to release with nymbl_store_close(), which unlocks
 * @param      path   of the file, copied
 * @param[out] holder filled on NYMBL_AGAIN; may be NULL
 * @param[out] err    NYMBL_IO, NYMBL_NO_MEMORY
 * @return NYMBL_OK, NYMBL_AGAIN where another holds the lock, or the failure
 */
NYMBL_API nymbl_kind nymbl_store_open(nymbl_store **out, const char *path,
                                      nymbl_store_holder *holder,
                                      nymbl_error *err);

/**
 * What the file held when it was locked. What was not written whole, or not by
 * nymbl_store_write(), is nothing.
 *
 * @param      store any
 * @param[out] size  bytes
 * @return borrowed bytes, NULL when there are none
 */
NYMBL_API const char *nymbl_store_content(const nymbl_store *store,
                                          size_t *size);

/**
 * Write a new content. It is not flushed to disk: after a power cut an older
 * one, or none, may be found.
 *
 * @param      store any
 * @param      data  copied
 * @param      size  bytes
 * @param[out] err   NYMBL_TOO_LARGE over NYMBL_STORE_MAX, NYMBL_IO,
 *                   NYMBL_NO_MEMORY
 * @return NYMBL_OK, NYMBL_AGAIN where another file has taken its place (see
 *         nymbl_store_break_lock()), so that nobody will read this: close it
 * and begin again; or the failure
 */
NYMBL_API nymbl_kind nymbl_store_write(nymbl_store *store, const void *data,
                                       size_t size, nymbl_error *err);

/**
 * Unlock and close a store.
 *
 * @param store may be NULL
 */
NYMBL_API void nymbl_store_close(nymbl_store *store);

/**
 * Put a copy without a lock in the file's place, because a process that was
 * stopped holds the lock for too long. What that one writes later is lost, and
 * nymbl_store_write() tells it so.
 *
 * Does nothing where the lock was given up or has another holder meanwhile.
 * Where two do this at the same moment, a write between them may be lost.
 *
 * @param      path of the file
 * @param      fingerprint of the holder, as nymbl_store_open() gave it
 * @param[out] err  NYMBL_IO, NYMBL_NO_MEMORY
 * @return NYMBL_OK or the failure
 */
NYMBL_API nymbl_kind nymbl_store_break_lock(const char *path,
                                            uint64_t fingerprint,
                                            nymbl_error *err);

/** Bytes of a boot's name, NUL included. */
#define NYMBL_BOOT_ID_SIZE 37

/**
 * A clock that all processes of this machine share and that nobody sets:
 * seconds since it was started, sleep included.
 *
 * @param[out] id the name of this start; "" where there is no such clock or
 *                name, and then this is the wall clock, since 1970
 * @return seconds
 */
NYMBL_API double nymbl_boot_clock(char id[NYMBL_BOOT_ID_SIZE]);

#ifdef __cplusplus
}
#endif

#endif
