/* Asks over the control socket, see control_client.h. Any one thread. */
#include "admin/control_client.h"

#include "admin/control.h"
#include "base/mem.h"
#include "os/os_net.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>

int control_client_open(struct control_client *ret, const char *dir)
{
    char path[4200];
    int len = snprintf(path, sizeof path, "%s/" CONTROL_SOCKET, dir);
    if (len < 0 || (size_t)len >= sizeof path)
        return -ENAMETOOLONG;
    return os_unix_connect(path, &ret->fd);
}

static int send_request(int fd, const json_t *request)
{
    char *text = json_dumps(request, JSON_COMPACT);
    if (!text)
        return -ENOMEM;
    uint32_t header = htobe32((uint32_t)strlen(text));
    int err = os_send_all(fd, &header, sizeof header);
    if (err == 0)
        err = os_send_all(fd, text, strlen(text));
    json_free_t json_free;
    json_get_alloc_funcs(NULL, &json_free);
    explicit_bzero(text, strlen(text)); /* it may hold a verifier */
    json_free(text);
    return err;
}

static json_t *receive_response(int fd)
{
    uint32_t header;
    if (os_recv_all(fd, &header, sizeof header) < 0)
        return NULL;
    size_t len = be32toh(header);
    char *text = len <= CONTROL_RESPONSE_MAX ? mem_alloc(len + 1) : NULL;
    json_t *response = NULL;
    if (text && os_recv_all(fd, text, len) == 0)
        response = json_loadb(text, len, 0, NULL);
    mem_free(text);
    return response;
}

json_t *control_client_request(struct control_client *client, json_t *request)
{
    int err = request ? send_request(client->fd, request) : -ENOMEM;
    json_decref(request);
    return err < 0 ? NULL : receive_response(client->fd);
}

void control_client_close(struct control_client *client)
{
    os_socket_close(client->fd);
    client->fd = -1;
}
