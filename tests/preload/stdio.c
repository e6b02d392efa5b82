// Sockets in stdio, and descriptor numbers that stdio closes and reuses.
#include "check.h"

static bool contains(int fd, const char *text) {
    char buffer[256] = "";
    size_t length = strlen(text);
    return recv(fd, buffer, length, MSG_WAITALL) == (ssize_t)length && memcmp(buffer, text, length) == 0;
}

static int by_list(int fd, const char *format, ...) {
    va_list list;
    va_start(list, format);
    int result = vdprintf(fd, format, list);
    va_end(list);
    return result;
}

int main(void) {
    int fds[2], used[2];
    char line[128], path[] = "/tmp/accel-stdio-XXXXXX";
    tcp_pair(fds);
    check("a pair", ping_pong(fds, 100));

    check("send, dprintf, send", send(fds[0], "one ", 4, 0) == 4 && dprintf(fds[0], "%d+%s=%.2f %c", 2, "x", 2.5, '!') == 10 &&
                                     send(fds[0], " two", 4, 0) == 4);
    check("arrive in order", contains(fds[1], "one 2+x=2.50 ! two"));
    check("vdprintf", by_list(fds[0], "%s %d %d %d %d %d %d %g", "many", 1, 2, 3, 4, 5, 6, 0.5) == 20 && contains(fds[1], "many 1 2 3 4 5 6 0.5"));
    errno = 0;
    check("dprintf to nowhere", dprintf(-1, "x") < 0 && errno == EBADF);
    check("the pair goes on", ping_pong(fds, 50));

    tcp_pair(used);
    ping_pong(used, 100);
    FILE *stream = fdopen(used[0], "r+");
    check("fdopen", stream && fileno(stream) == used[0]);
    send(used[1], "a line\n", 7, 0);
    check("fgets", fgets(line, sizeof line, stream) && strcmp(line, "a line\n") == 0);
    check("fprintf", fprintf(stream, "answer %d", 7) == 8 && fflush(stream) == 0 && contains(used[1], "answer 7"));
    fputs("at the close", stream);
    int number = used[0];
    check("fclose", fclose(stream) == 0 && contains(used[1], "at the close"));
    char byte;
    ssize_t ended = recv(used[1], &byte, 1, 0);
    check("ends the stream", ended == 0 || (ended < 0 && errno == ECONNRESET));
    close(used[1]);

    int filler;
    while ((filler = open("/dev/null", O_RDONLY)) < number) {
    }
    close(filler);
    int file = mkstemp(path);
    check("the number is reused", file == number);
    check("by a file", write(file, "in the file", 11) == 11 && pread(file, line, 11, 0) == 11 && memcmp(line, "in the file", 11) == 0);
    stream = fdopen(file, "r");
    check("fclose of a file", stream && fclose(stream) == 0 && close(file) == -1 && errno == EBADF);

    tcp_pair(used);
    ping_pong(used, 100);
    stream = fdopen(used[0], "w");
    fputs("before freopen", stream);
    FILE *again = freopen(path, "r", stream);
    check("freopen", again == stream && fgets(line, sizeof line, again) && strcmp(line, "in the file") == 0);
    check("wrote what was left", contains(used[1], "before freopen") && recv(used[1], &byte, 1, 0) == 0);
    check("reads go to the file", lseek(fileno(again), 0, SEEK_SET) == 0 && read(fileno(again), line, 2) == 2 && line[0] == 'i');
    fclose(again);
    close(used[1]);
    unlink(path);

    errno = 0;
    check("fdopen of nothing", fdopen(-1, "r") == NULL && errno == EBADF);
    char memory[16];
    stream = fmemopen(memory, sizeof memory, "w");
    check("a stream without a descriptor", stream && fclose(stream) == 0);
    check("the pair goes on", ping_pong(fds, 50));
    return finish();
}
