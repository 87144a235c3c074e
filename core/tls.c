/* SPDX-License-Identifier: MIT */
/* The TLS library that libcurl brings: whether it is the one that is called,
 * and what only it knows of a connection. */
#include "internal.h"

#include <dlfcn.h>
#ifdef __GLIBC__
#include <link.h>
#endif
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* SSL_RECEIVED_SHUTDOWN (OpenSSL, SSL_get_shutdown(3)): close_notify has come.
 */
#define RECEIVED_SHUTDOWN 2

/* libcurl reports a connection that was cut and one that was closed alike, and
 * reuses one whose last reply was longer than it said. So OpenSSL is asked: the
 * library that libcurl calls, and no other, which is why none is linked.
 */
static int (*shutdown_state)(const void *connection);
static int (*bytes_pending)(const void *connection);
static int (*records_pending)(const void *connection);

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* ---- whose functions libcurl calls ---- */

/* Two OpenSSLs in a process are harmless as long as each library calls its own.
 * The dynamic linker sees to that by symbol versions: libcurl asks for
 * SSL_CTX_new of OPENSSL_3.0.0, and an OpenResty's libssl.so.1.1 has one of
 * OPENSSL_1_1_0. But an image that is ahead of libcurl's library and names no
 * versions is taken for any: a program that has linked OpenSSL or BoringSSL
 * statically (every nginx exports what is in it, for its modules), LibreSSL, a
 * preloaded library; and where there are no versions (musl), all. libcurl then
 * makes its structures with one library and uses them with the other. That
 * works if
 *
 * - the other is of the same name and major version (before 3: and minor),
 *   whose functions are compatible, and
 * - either is called for everything, or both agree in their minor version too:
 *   a program exports no more than it uses, and the layouts of structures
 *   change with minor versions.
 *
 * Everything else crashes in the first TLS connection.
 */

/* libcurl with all that it is linked with, in that order, or NULL. */
static void *libcurl_open(void)
{
    CURLMcode (*inside)(CURLM *, int *) = curl_multi_perform;
    void *address;
    Dl_info found;

    /* memcpy: ISO C has no cast from a function's address to an object's */
    memcpy(&address, &inside, sizeof(address));
    if (dladdr(address, &found) == 0)
        return NULL;
    return dlopen(found.dli_fname, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
}

/* Whether a symbol has a version, by which references of another one pass it
 * over. */
static bool is_versioned(void *address)
{
#ifdef __GLIBC__
    const ElfW(Half) *versions = NULL;
    const ElfW(Sym) *symbols = NULL, *symbol;
    const struct link_map *image;
    void *extra;
    Dl_info found;

    if (dladdr1(address, &found, &extra, RTLD_DL_LINKMAP) == 0)
        return false;
    image = extra;
    if (dladdr1(address, &found, &extra, RTLD_DL_SYMENT) == 0)
        return false;
    symbol = extra;
    for (const ElfW(Dyn) *d = image->l_ld; d->d_tag != DT_NULL; d++) {
        ElfW(Addr) at = d->d_un.d_ptr;

        if (at < image->l_addr) /* some machines leave it relative */
            at += image->l_addr;
        if (d->d_tag == DT_VERSYM)
            versions = (const ElfW(Half) *)at;
        if (d->d_tag == DT_SYMTAB)
            symbols = (const ElfW(Sym) *)at;
    }
    return versions != NULL && symbol != NULL &&
           (versions[symbol - symbols] & 0x7fff) > VER_NDX_GLOBAL;
#else
    (void)address;
    return false;
#endif
}

/* What a reference of libcurl's is bound to; `own`: in the library that it was
 * linked with. */
static void *symbol_find(void *libcurl, const char *name, void **own)
{
    void *first = dlsym(RTLD_DEFAULT, name);

    *own = dlsym(libcurl, name);
#ifdef __APPLE__
    return *own; /* a reference there says in which library */
#endif
    if (first == NULL || *own == NULL || first == *own ||
        (is_versioned(first) && is_versioned(*own)))
        return *own;
    return first;
}

/* Whether libcurl uses a library with OpenSSL's interface at present. */
static bool is_openssl(void)
{
    static const char *const names[] = {"OpenSSL/", "LibreSSL/", "BoringSSL",
                                        "quictls/", "AWS-LC"};
    const char *used = curl_version_info(CURLVERSION_NOW)->ssl_version;

    for (size_t i = 0; used != NULL && i < sizeof(names) / sizeof(names[0]);
         i++) {
        if (strncmp(used, names[i], strlen(names[i])) == 0)
            return true;
    }
    return false;
}

/* "OpenSSL 3.0.19 27 Jan 2026"; "" where it is not told. */
static const char *version_of(void *symbol)
{
    const char *(*version)(int);

    if (symbol == NULL)
        return "";
    memcpy(&version, &symbol, sizeof(version));
    return version(0);
}

/* Bytes of a version up to the nth dot; 0: there are not as many. */
static size_t version_head(const char *version, int dots)
{
    for (size_t i = 0; version[i] != '\0'; i++) {
        dots -= version[i] == '.';
        if (dots == 0)
            return i + 1;
    }
    return 0;
}

static bool versions_agree(const char *a, const char *b, int dots)
{
    size_t length = version_head(a, dots);

    return length > 0 && strncmp(a, b, length) == 0;
}

static char problem[400];

/* Fill in `problem` where calls of libcurl's go astray. */
static void problem_find(void *libcurl)
{
    /* of both libraries, what every program uses and what few do */
    static const char *const names[] = {
        "OpenSSL_version",      "SSL_CTX_new",  "SSL_get_shutdown",
        "X509_STORE_set_flags", "BIO_meth_new", "X509_LOOKUP_file",
    };
    const size_t count = sizeof(names) / sizeof(names[0]);
    size_t astray = 0, there = 0;
    const char *ours, *others;
    void *own, *bound;

    for (size_t i = 0; i < count; i++) {
        bound = symbol_find(libcurl, names[i], &own);
        there += own != NULL;
        astray += bound != own;
    }
    if (astray == 0)
        return;
    bound = symbol_find(libcurl, "OpenSSL_version", &own);
    ours = version_of(own);
    others = bound != own ? version_of(bound) : "";
    if (versions_agree(ours, others, strncmp(ours, "OpenSSL 1.", 10) ? 1 : 2) &&
        (astray == there || versions_agree(ours, others, 2)))
        return;
    snprintf(problem, sizeof(problem),
             "libcurl is linked with %.40s, but this program has %.40s in its "
             "place, and a TLS connection would crash: install a libcurl that "
             "is linked with what the program has, or a program that is linked "
             "with the system's OpenSSL",
             ours, *others != '\0' ? others : "another TLS library");
}

static void library_find(void)
{
    void *libcurl, *own, *symbol;

    if (!is_openssl())
        return;
    libcurl = libcurl_open();
    if (libcurl == NULL)
        libcurl = dlopen(NULL, RTLD_LAZY); /* it is in the program itself */
    symbol = symbol_find(libcurl, "SSL_get_shutdown", &own);
    memcpy(&shutdown_state, &symbol, sizeof(symbol));
    symbol = symbol_find(libcurl, "SSL_pending", &own);
    memcpy(&bytes_pending, &symbol, sizeof(symbol));
    symbol = symbol_find(libcurl, "SSL_has_pending", &own);
    memcpy(&records_pending, &symbol, sizeof(symbol));
    problem_find(libcurl);
    dlclose(libcurl);
}

const char *nymbl_tls_problem(void)
{
    pthread_once(&once, library_find);
    return *problem != '\0' ? problem : NULL;
}

/* ---- what it knows of a connection ---- */

/* The SSL of a transfer's connection, or NULL. */
static const void *connection_of(CURL *easy)
{
    const struct curl_tlssessioninfo *session = NULL;

    pthread_once(&once, library_find);
    if (curl_easy_getinfo(easy, CURLINFO_TLS_SSL_PTR, &session) != CURLE_OK ||
        session == NULL || session->backend != CURLSSLBACKEND_OPENSSL)
        return NULL;
    return session->internals;
}

bool nymbl__tls_has_ended(CURL *easy)
{
    const void *connection = connection_of(easy);

    return connection != NULL && shutdown_state != NULL &&
           (shutdown_state(connection) & RECEIVED_SHUTDOWN) != 0;
}

bool nymbl__tls_has_pending(CURL *easy)
{
    const void *connection = connection_of(easy);

    if (connection == NULL)
        return false;
    /* SSL_has_pending() also sees records that were read ahead but not
     * processed yet; very old libraries lack it */
    return (bytes_pending != NULL && bytes_pending(connection) > 0) ||
           (records_pending != NULL && records_pending(connection) > 0);
}
