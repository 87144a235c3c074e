/* SPDX-License-Identifier: MIT */
/* The limit to be held against: GETs by libcurl alone, one reused handle.
 * Usage: libcurl get|page COUNT BASE_URL CA_FILE TOKEN */
#include <curl/curl.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char reply[1 << 20];
static size_t reply_size;

static size_t body_arrived(char *data, size_t size, size_t count, void *payload)
{
    (void)payload;
    size *= count;
    if (reply_size + size > sizeof(reply))
        return 0;
    memcpy(reply + reply_size, data, size);
    reply_size += size;
    return size;
}

int main(int argc, char **argv)
{
    char url[1024], bearer[4096];
    struct curl_slist *headers = NULL;
    CURL *easy;
    int count;

    if (argc != 6)
        return 2;
    count = atoi(argv[2]);
    snprintf(bearer, sizeof(bearer), "Authorization: Bearer %s", argv[5]);
    headers = curl_slist_append(headers, bearer);
    headers = curl_slist_append(headers, "x-api-key: key");
    headers = curl_slist_append(headers, "Accept: application/json");
    easy = curl_easy_init();
    curl_easy_setopt(easy, CURLOPT_CAINFO, argv[4]);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, body_arrived);
    for (int i = 0; i < count; i++) {
        long status = 0;

        if (strcmp(argv[1], "get") == 0)
            snprintf(url, sizeof(url), "%s/Patients(1)/Documents(doc-1)",
                     argv[3]);
        else
            snprintf(url, sizeof(url),
                     "%s/Patients(1)/Documents?$orderby=id&$top=100&$skip=%d"
                     "&$count=true",
                     argv[3], i * 100);
        reply_size = 0;
        curl_easy_setopt(easy, CURLOPT_URL, url);
        if (curl_easy_perform(easy) != CURLE_OK)
            return 1;
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        if (status != 200)
            return 1;
    }
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
    return 0;
}
