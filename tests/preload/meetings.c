// Connections of which ACCEL_STATS_FILE must tell whether they could be, and were, accelerated: argv[1] names one.
#include "check.h"

static int listener_at(struct sockaddr_in *address) {
    socklen_t length = sizeof *address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    check("listen", !bind(listener, (struct sockaddr *)address, length) && !listen(listener, 8) &&
                        !getsockname(listener, (struct sockaddr *)address, &length));
    return listener;
}

static void send_bytes(int fd, int count) {
    for (int i = 0; i < count; i++)
        check("send", send(fd, "x", 1, 0) == 1);
}

static void receive_bytes(int fd, int count) {
    char bytes[64];
    check("recv", recv(fd, bytes, (size_t)count, MSG_WAITALL) == count);
}

static void receive_end(int fd) {
    char byte;
    check("end of stream", recv(fd, &byte, 1, 0) == 0);
}

static void echo(int fd, int rounds) {
    for (int i = 0; i < rounds; i++) {
        receive_bytes(fd, 1);
        send_bytes(fd, 1);
    }
}

// The listener's process is not the one that accepts.
static void by_a_child(void) {
    struct sockaddr_in address;
    int listener = listener_at(&address);
    fflush(stdout);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    pid_t child = fork();
    if (child == 0) {
        close(client);
        echo(accept(listener, NULL, NULL), 20);
        exit(finish());
    }
    check("connect", !connect(client, (struct sockaddr *)&address, sizeof address));
    for (int i = 0; i < 20; i++) {
        send_bytes(client, 1);
        receive_bytes(client, 1);
    }
    check("child", status_of(child) == 0);
}

int main(int count, char **words) {
    const char *name = count == 2 ? words[1] : "";
    if (!strcmp(name, "by_a_child")) {
        by_a_child();
        return finish();
    }
    int fds[2];
    tcp_pair(fds);
    int client = fds[0], server = fds[1];
    if (!strcmp(name, "late_reader")) {
        send_bytes(client, 40);
        receive_bytes(server, 40);
        send_bytes(server, 1);
        receive_bytes(client, 1);
    } else if (!strcmp(name, "very_late_reader")) {
        send_bytes(client, 5000);
        for (int i = 0; i < 100; i++)
            receive_bytes(server, 50);
        // A connector that tried so often in vain tries once in 1,024 messages.
        for (int i = 0; i < 1100; i++) {
            send_bytes(client, 1);
            receive_bytes(server, 1);
        }
    } else if (!strcmp(name, "read_after_close")) {
        send_bytes(client, 3);
        close(client);
        receive_bytes(server, 3);
        receive_end(server);
    } else if (!strcmp(name, "read_after_shutdown")) {
        send_bytes(client, 3);
        shutdown(client, SHUT_WR);
        receive_bytes(server, 3);
        receive_end(server);
        close(server);
        receive_end(client);
    } else if (!strcmp(name, "answer_after_shutdown")) {
        send_bytes(client, 3);
        shutdown(client, SHUT_WR);
        receive_bytes(server, 3);
        send_bytes(server, 3);
        receive_bytes(client, 3);
    } else if (!strcmp(name, "never_read")) {
        send_bytes(client, 3);
    } else if (!strcmp(name, "read_in_part")) {
        send_bytes(client, 3);
        receive_bytes(server, 1);
    } else {
        return 2;
    }
    return finish();
}
