/* SPDX-License-Identifier: MIT */
/* The reference for the benchmark: libcurl alone, with reused handles. Like
 * nymbl, it opens a new connection for each upload, with the larger buffer.
 * Usage and workloads are those of nymbl.lua. */
#include <curl/curl.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char response[1 << 20];
static size_t response_size;

static size_t write_cb(char *data, size_t size, size_t count, void *payload)
{
    (void)payload;
    size *= count;
    if (response_size + size > sizeof(response))
        return 0;
    memcpy(response + response_size, data, size);
    response_size += size;
    return size;
}

static size_t body_written(char *data, size_t size, size_t count, void *payload)
{
    return fwrite(data, size, count, payload) * size;
}

static bool is_download(const char *what)
{
    return strcmp(what, "download") == 0 || strcmp(what, "cold") == 0 ||
           strcmp(what, "many") == 0;
}

/* Create a handle for a workload. */
static CURL *easy_new(const char *what, const char *ca_file, const char *token)
{
    struct curl_slist *headers = NULL; /* for the whole run */
    CURL *easy = curl_easy_init();
    char bearer[4096];

    snprintf(bearer, sizeof(bearer), "Authorization: Bearer %s", token);
    headers = curl_slist_append(headers, bearer);
    headers = curl_slist_append(headers, "x-api-key: key");
    headers = curl_slist_append(headers, is_download(what)
                                             ? "Accept: */*"
                                             : "Accept: application/json");
    headers = curl_slist_append(headers, "Expect:");
    curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, write_cb);
    return easy;
}

static void upload_prepare(CURL *easy, const char *file)
{
    curl_mime *mime = curl_mime_init(easy); /* one for the whole run */
    curl_mimepart *part = curl_mime_addpart(mime);

    curl_mime_name(part, "file");
    curl_mime_filedata(part, file);
    curl_mime_filename(part, "document.pdf");
    curl_mime_type(part, "application/pdf");
    curl_easy_setopt(easy, CURLOPT_MIMEPOST, mime);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 524288L);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
}

/* Write a response to a file, from its beginning. */
static FILE *download_prepare(CURL *easy, const char *file)
{
    FILE *to = fopen(file, "wb");

    if (to == NULL)
        exit(1);
    setvbuf(to, NULL, _IONBF, 0);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, body_written);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, to);
    return to;
}

static void url_make(char url[1024], const char *what, const char *base_url,
                     int i)
{
    const char *path = "";

    if (strcmp(what, "get") == 0)
        path = "(doc-1)";
    else if (strcmp(what, "download") == 0)
        path = "(doc-1)/$value";
    else if (is_download(what))
        path = "(doc-2)/$value";
    snprintf(url, 1024, "%s/Patients(1)/Documents%s", base_url, path);
    if (strcmp(what, "page") == 0)
        snprintf(url + strlen(url), 1024 - strlen(url),
                 "?$orderby=id&$top=100&$skip=%d&$count=true", i * 100);
}

static void result_check(CURL *easy, CURLcode code)
{
    long status = 0;

    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (code != CURLE_OK || status / 100 != 2)
        exit(1);
}

#define AT_ONCE 16

static size_t body_ignored(char *data, size_t size, size_t count, void *payload)
{
    (void)data;
    (void)payload;
    return size * count;
}

/* Download documents, several at once. */
static void many(int count, char **argv)
{
    CURLM *multi = curl_multi_init();
    int started = 0, ended = 0;

    for (; started < count && started < AT_ONCE; started++) {
        CURL *easy = easy_new("many", argv[4], argv[5]);
        char url[1024];

        url_make(url, "many", argv[3], 0);
        curl_easy_setopt(easy, CURLOPT_URL, url);
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, body_ignored);
        curl_multi_add_handle(multi, easy);
    }
    while (ended < count) {
        CURLMsg *message;
        int running, left;

        curl_multi_perform(multi, &running);
        message = curl_multi_info_read(multi, &left);
        for (; message != NULL; message = curl_multi_info_read(multi, &left)) {
            CURL *easy = message->easy_handle;

            result_check(easy, message->data.result);
            curl_multi_remove_handle(multi, easy);
            ended++;
            if (started++ < count)
                curl_multi_add_handle(multi, easy);
            else
                curl_easy_cleanup(easy);
        }
        if (ended < count)
            curl_multi_poll(multi, NULL, 0, 1000, NULL);
    }
    curl_multi_cleanup(multi);
}

int main(int argc, char **argv)
{
    FILE *to = NULL;
    CURL *easy;
    int count;

    if (argc < 6 || argc > 7)
        return 2;
    count = atoi(argv[2]);
    if (strcmp(argv[1], "many") == 0) {
        many(count, argv);
        return 0;
    }
    easy = easy_new(argv[1], argv[4], argv[5]);
    if (strcmp(argv[1], "download") == 0)
        to = download_prepare(easy, argv[6]);
    if (strcmp(argv[1], "upload") == 0)
        upload_prepare(easy, argv[6]);
    for (int i = 0; i < count; i++) {
        char url[1024];

        if (to != NULL)
            rewind(to);
        response_size = 0;
        url_make(url, argv[1], argv[3], i);
        curl_easy_setopt(easy, CURLOPT_URL, url);
        result_check(easy, curl_easy_perform(easy));
    }
    if (to != NULL)
        fclose(to);
    curl_easy_cleanup(easy);
    return 0;
}
