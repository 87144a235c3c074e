/* SPDX-License-Identifier: MIT */
/* The reference for the benchmark: libcurl alone, with one reused handle. Like
 * nymbl, it opens a new connection for each upload, with the larger buffer.
 * Usage: libcurl get|page|download|upload COUNT BASE_URL CA_FILE TOKEN [FILE]
 */
#include <curl/curl.h>

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

/* Set the options for each kind of call. Returns the file to close, if any. */
static FILE *call_prepare(CURL *easy, const char *what, const char *file)
{
    curl_mime *mime;
    curl_mimepart *part;
    FILE *to;

    if (strcmp(what, "download") == 0) {
        to = fopen(file, "wb");
        if (to == NULL)
            exit(1);
        setvbuf(to, NULL, _IONBF, 0);
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, body_written);
        curl_easy_setopt(easy, CURLOPT_WRITEDATA, to);
        return to;
    }
    if (strcmp(what, "upload") == 0) {
        mime = curl_mime_init(easy); /* one for the whole run */
        part = curl_mime_addpart(mime);
        curl_mime_name(part, "file");
        curl_mime_filedata(part, file);
        curl_mime_filename(part, "document.pdf");
        curl_mime_type(part, "application/pdf");
        curl_easy_setopt(easy, CURLOPT_MIMEPOST, mime);
        curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 524288L);
        curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    FILE *to;
    char url[1024], bearer[4096];
    struct curl_slist *headers = NULL;
    CURL *easy;
    int count;

    if (argc < 6 || argc > 7)
        return 2;
    count = atoi(argv[2]);
    snprintf(bearer, sizeof(bearer), "Authorization: Bearer %s", argv[5]);
    headers = curl_slist_append(headers, bearer);
    headers = curl_slist_append(headers, "x-api-key: key");
    headers = curl_slist_append(headers, strcmp(argv[1], "download") == 0
                                             ? "Accept: */*"
                                             : "Accept: application/json");
    headers = curl_slist_append(headers, "Expect:");
    easy = curl_easy_init();
    curl_easy_setopt(easy, CURLOPT_CAINFO, argv[4]);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, write_cb);
    to = call_prepare(easy, argv[1], argv[6]);
    for (int i = 0; i < count; i++) {
        long status = 0;

        if (to != NULL)
            rewind(to);
        if (strcmp(argv[1], "get") == 0)
            snprintf(url, sizeof(url), "%s/Patients(1)/Documents(doc-1)",
                     argv[3]);
        else if (strcmp(argv[1], "download") == 0)
            snprintf(url, sizeof(url), "%s/Patients(1)/Documents(doc-1)/$value",
                     argv[3]);
        else if (strcmp(argv[1], "upload") == 0)
            snprintf(url, sizeof(url), "%s/Patients(1)/Documents", argv[3]);
        else
            snprintf(url, sizeof(url),
                     "%s/Patients(1)/Documents?$orderby=id&$top=100&$skip=%d"
                     "&$count=true",
                     argv[3], i * 100);
        response_size = 0;
        curl_easy_setopt(easy, CURLOPT_URL, url);
        if (curl_easy_perform(easy) != CURLE_OK)
            return 1;
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        if (status / 100 != 2)
            return 1;
    }
    if (to != NULL)
        fclose(to);
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
    return 0;
}
