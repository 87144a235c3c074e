/* SPDX-License-Identifier: MIT */
/* SHA-256 of many bytes: by OpenSSL if the process has loaded it, otherwise by
 * sha256.c. */
#include "base/digest.h"

#include "base/secret.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

/* OpenSSL's functions for digests (EVP_DigestInit(3)), unchanged since 1.1.0,
 * and in LibreSSL, BoringSSL and AWS-LC. */
static struct evp {
    void *(*context_new)(void);
    void (*context_free)(void *context);
    const void *(*sha256)(void);
    int (*init)(void *context, const void *type, void *engine);
    int (*update)(void *context, const void *data, size_t size);
    int (*final)(void *context, unsigned char *digest, unsigned *size);
} evp;

static bool evp_is_usable;
static pthread_once_t evp_once = PTHREAD_ONCE_INIT;

/* Store the address of a function. Returns false if it is not in *library, as
 * the previous functions: some of them may be interposed
 * (exchange/tls_library.c). */
static bool function_find(void *function, const char *name, void **library)
{
    void *found = dlsym(RTLD_DEFAULT, name);
    Dl_info info;

    if (found == NULL || dladdr(found, &info) == 0 ||
        (*library != NULL && *library != info.dli_fbase))
        return false;
    *library = info.dli_fbase;
    memcpy(function, &found, sizeof(found));
    return true;
}

static bool evp_begin(nymbl__digest *digest)
{
    digest->context = evp.context_new();
    if (digest->context != NULL &&
        evp.init(digest->context, evp.sha256(), NULL) == 1)
        return true;
    evp.context_free(digest->context);
    digest->context = NULL;
    return false;
}

/* Whether the functions compute the SHA-256 of "abc" correctly. */
static bool evp_works(void)
{
    nymbl__digest digest;
    char text[65];

    return evp_begin(&digest) && nymbl__digest_add(&digest, "abc", 3) &&
           nymbl__digest_end(&digest, text) &&
           strcmp(text, "ba7816bf8f01cfea414140de5dae2223"
                        "b00361a396177a9cb410ff61f20015ad") == 0;
}

static void evp_find(void)
{
    void *library = NULL;

    evp_is_usable =
        function_find(&evp.context_new, "EVP_MD_CTX_new", &library) &&
        function_find(&evp.context_free, "EVP_MD_CTX_free", &library) &&
        function_find(&evp.sha256, "EVP_sha256", &library) &&
        function_find(&evp.init, "EVP_DigestInit_ex", &library) &&
        function_find(&evp.update, "EVP_DigestUpdate", &library) &&
        function_find(&evp.final, "EVP_DigestFinal_ex", &library) &&
        evp_works();
}

void nymbl__digest_begin(nymbl__digest *digest)
{
    pthread_once(&evp_once, evp_find);
    if (evp_is_usable && evp_begin(digest))
        return;
    digest->context = NULL;
    nymbl__sha256_init(&digest->own);
}

bool nymbl__digest_add(nymbl__digest *digest, const void *data, size_t size)
{
    if (digest->context != NULL)
        return evp.update(digest->context, data, size) == 1;
    nymbl__sha256_add(&digest->own, data, size);
    return true;
}

bool nymbl__digest_end(nymbl__digest *digest, char text[65])
{
    unsigned char bytes[64];
    bool good;

    if (digest->context == NULL) {
        nymbl__sha256_text(&digest->own, text);
        return true;
    }
    good = evp.final(digest->context, bytes, NULL) == 1;
    nymbl__digest_free(digest);
    if (good)
        nymbl__sha256_format(bytes, text);
    return good;
}

void nymbl__digest_free(nymbl__digest *digest)
{
    if (digest->context != NULL)
        evp.context_free(digest->context);
    digest->context = NULL;
    nymbl__secret_wipe(&digest->own, sizeof(digest->own));
}
