/* clone() by hand: a child that shares the table of descriptors, with memory of its own or in its parent's. */
#include "faults.h"
#include <linux/sched.h>

enum { BY_CLONE, BY_SYSCALL, BY_CLONE3, IN_MEMORY, IN_MEMORY_AFTER_VFORK, IN_MEMORY_AND_EXIT, FORMS };
static const char *const forms[FORMS] = {"clone", "syscall(SYS_clone)", "syscall(SYS_clone3)", "CLONE_VM", "CLONE_VM after a vfork", "CLONE_VM and _exit"};
enum { APART = CLONE_FILES | SIGCHLD, TOGETHER = CLONE_FILES | CLONE_VM | CLONE_FS | CLONE_SIGHAND | SIGCHLD };

/* What the child does to the descriptors of both. a: a stream that goes on; b: closed here, its number taken by a
 * file; and a connection that it makes. */
struct shared { int a, b, port, numbers[2], exits; volatile struct card *card; uint64_t by_ring; };
static int child(void *arg) {
    struct shared *s = arg;
    uint64_t before = s->card ? s->card->ring_received_bytes + s->card->ring_sent_bytes : 0;
    get(s->a, 1000, 1, 1000);
    put(s->a, 500, 2, 500);
    if (s->card) s->by_ring = s->card->ring_received_bytes + s->card->ring_sent_bytes - before;
    put(s->b, 10, 5, 0);
    Q(close(s->b));
    CHECK(Q(open("/dev/zero", O_RDONLY)) == s->b, "the number %d is not free", s->b);
    int c = connect_to(s->port);
    put(c, 100, 7, 0);
    CHECK(write(s->numbers[1], &c, sizeof c) == sizeof c, "the pipe");
    if (s->exits) _exit(0);
    return 0;
}
static pid_t start(int form, struct shared *s) {
    static char stack[1 << 20] __attribute__((aligned(16)));
    struct clone_args args = {.flags = CLONE_FILES, .exit_signal = SIGCHLD};
    pid_t pid = 0;
    switch (form) {
    case BY_CLONE: return Q(clone(child, stack + sizeof stack, APART, s));
    case BY_SYSCALL: pid = Q(syscall(SYS_clone, APART, NULL, NULL, NULL, 0)); break;
    case BY_CLONE3: pid = Q(syscall(SYS_clone3, &args, sizeof args)); break;
    case IN_MEMORY_AFTER_VFORK: pid = vfork(); if (!pid) _exit(0); Q(waitpid(pid, NULL, 0)); /* fall through */
    default: s->exits = form == IN_MEMORY_AND_EXIT; return Q(clone(child, stack + sizeof stack, TOGETHER, s));
    }
    if (!pid) { child(s); _exit(0); }
    return pid;
}

/* Other threads, which talk all the time. */
static volatile int stop;
static void *chatter(void *arg) {
    int *e = arg;
    for (uint64_t at = 0; !stop; at += 3000) { put(e[0], 3000, 9, at); get(e[1], 3000, 9, at); }
    return NULL;
}
ROLE(sharer) { /* PORT FORM */
    int form = atoi(argv[1]), together = form >= IN_MEMORY, c, e[2];
    struct shared s = {.port = atoi(argv[0])};
    pthread_t t;
    s.a = connect_to(s.port);
    warm(s.a, 1);
    s.b = connect_to(s.port);
    warm(s.b, 1);
    s.card = card(s.a);
    pair(&e[0], &e[1]);
    pthread_create(&t, NULL, chatter, e);
    Q(pipe(s.numbers));
    put(s.a, 500, 2, 0);
    tell(1);
    hear();                     /* 4000 bytes lie unread */
    get(s.a, 1000, 1, 0);
    reap(start(form, &s));
    char b[16] = {1};
    CHECK(read(s.b, b, 16) == 16 && !memcmp(b, (char[16]){0}, 16), "the number of a socket that a child closed is not the child's file");
    CHECK(send(s.b, b, 1, MSG_NOSIGNAL) < 0 && errno == ENOTSOCK, "a send to the child's file");
    Q(close(s.b));
    CHECK(read(s.numbers[0], &c, sizeof c) == sizeof c, "the child's connection");
    get(c, 100, 8, 0);
    put(c, 50, 7, 100);
    Q(close(c));
    get(s.a, 2000, 1, 2000);
    put(s.a, 500, 2, 1000);
    if (accel() && together) CHECK(s.card->path == LOCAL && (s.by_ring > 0 || !spins_always()), "in shared memory: path %d, %llu bytes by the child through the ring", s.card->path, (unsigned long long)s.by_ring);
    stop = 1;
    pthread_join(t, NULL);
    Q(close(s.a));
    CHECK(read(s.a, b, 1) < 0 && errno == EBADF, "closed, and open");
    close(e[0]); close(e[1]);
    CHECK(held().channels == 0, "%d channels left", held().channels);
}
ROLE(sharers_peer) {
    int port, l = listen_on(&port);
    char b[1];
    tell(port);
    int a = accept_on(l);
    warm(a, 0);
    int other = accept_on(l);
    warm(other, 0);
    hear();
    put(a, 4000, 1, 0);
    tell(1);
    get(a, 1000, 2, 0);         /* what lay unread comes to the child by this call */
    get(other, 10, 5, 0);
    CHECK(recv(other, b, 1, 0) == 0, "no EOF from what the child closed");
    int c = accept_on(l);
    get(c, 100, 7, 0);
    put(c, 100, 8, 0);
    get(c, 50, 7, 100);
    CHECK(recv(c, b, 1, 0) == 0, "no EOF from the child's connection");
    get(a, 500, 2, 1000);
    CHECK(recv(a, b, 1, 0) == 0, "no EOF");
}
CASE(shared_descriptors) {
    int rounds = scaled(1);
    for (int i = 0; i < rounds * FORMS; i++) {
        struct role p = spawn("sharers_peer");
        struct role s = spawn("sharer", number(hear_on(p.control)), number(i % FORMS));
        CHECK(hear_on(s.control) == 1, "ready");
        tell_on(p.control, 0);
        CHECK(hear_on(p.control) == 1, "sent");
        tell_on(s.control, 0);
        if (getenv("FAULTS_VERBOSE")) fprintf(stderr, "%s\n", forms[i % FORMS]);
        finish(s);
        finish(p);
    }
    printf("shared_descriptors: %d children with CLONE_FILES, half of them in their parent's memory\n", rounds * FORMS);
}
