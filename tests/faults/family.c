/* fork, exec, spawn: who may use the rings, who gets the bytes, who sends the FIN. */
#include "faults.h"

/* ---- forks while threads do I/O ---- */
static volatile int stop;
static uint64_t moved;
struct ends { int a, b; };
static void *chatter(void *arg) {
    struct ends *e = arg;
    char b[20000];
    uint64_t at = 0;
    uint32_t seed = rnd(1000);
    while (!stop) {
        long n = 1 + rnd(sizeof b - 1);
        fill(b, n, seed, at);
        CHECK(write_full(e->a, b, n) == n, "write while others fork");
        CHECK(read_full(e->b, b, n) == n, "read while others fork");
        verify(b, n, seed, at);
        at += n;
        __sync_fetch_and_add(&moved, n);
    }
    return NULL;
}
static void *connecter(void *arg) { /* a meeting in every state while others fork */
    int *p = arg;
    char b[8] = {0};
    while (!stop) {
        int c, s;
        pair_on(p[0], p[1], &c, &s);
        int n = rnd(6);
        for (int i = 0; i < n; i++) { CHECK(write_full(c, b, 8) == 8 && read_full(s, b, 8) == 8 && write_full(s, b, 8) == 8 && read_full(c, b, 8) == 8, "ping"); }
        close(c);
        close(s);
    }
    return NULL;
}
SOLO(forks) {
    int rounds = scaled(200), port, l = listen_on(&port);
    struct ends e[4];
    pthread_t t[6];
    for (int i = 0; i < 4; i++) { pair_on(l, port, &e[i].a, &e[i].b); warm_pair(e[i].a, e[i].b, 1); }
    int lp[2] = {l, port};
    for (int i = 0; i < 3; i++) pthread_create(&t[i], NULL, chatter, &e[i]);
    pthread_create(&t[3], NULL, connecter, lp);
    for (int i = 0; i < rounds; i++) {
        pid_t p = Q(fork());
        if (!p) { if (i % 3 == 0) { close(e[0].a); close(e[3].b); } _exit(0); }
        reap(p);
    }
    stop = 1;
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < 4; i++) if (accel()) CHECK(path_of(e[i].a) == LOCAL && path_of(e[i].b) == LOCAL, "children that only closed and ended took connection %d to path %d/%d reason %d", i, path_of(e[i].a), path_of(e[i].b), reason_of(e[i].a));
    put_ring(e[3].a, 100, 9, 0);
    get(e[3].b, 100, 9, 0);
    /* last close sends the FIN, though children had it */
    close(e[3].a);
    char b[1];
    CHECK(recv(e[3].b, b, 1, 0) == 0, "no EOF after the last close");
    printf("forks: %d forks, %llu kB moved by threads meanwhile, all connections still local\n", rounds, (unsigned long long)moved >> 10);
}

/* ---- a fork before and after each step of the meeting ---- */
ROLE(step_client) {
    int port = atoi(argv[0]), rounds = atoi(argv[1]), upgraded = 0;
    for (int i = 0; i < rounds; i++) {
        int fd = connect_to(port);
        char b[32] = {0};
        int at = i % 7;
        for (int n = 0; n < 40; n++) {
            if (i % 2 == 0 && n == at) { pid_t p = Q(fork()); if (!p) _exit(0); reap(p); }
            CHECK(write_full(fd, b, 32) == 32, "write");
            if (i % 2 == 0 && n == at + 1) { pid_t p = Q(fork()); if (!p) _exit(0); reap(p); }
            CHECK(read_full(fd, b, 32) == 32, "read");
        }
        upgraded += path_of(fd) == LOCAL;
        close(fd);
    }
    printf("meeting_forks: client: %d of %d upgraded after a fork in the middle of the meeting\n", upgraded, rounds);
    if (accel()) CHECK(upgraded >= rounds / 2, "only %d of %d upgraded", upgraded, rounds);
}
ROLE(step_server) {
    int port, l = listen_on(&port), rounds = atoi(argv[0]), upgraded = 0;
    tell(port);
    struct held before = held();
    for (int i = 0; i < rounds; i++) {
        int fd = accept_on(l);
        char b[32];
        int at = i / 2 % 7;
        for (int n = 0; n < 40; n++) {
            if (i % 2 && n == at) { pid_t p = Q(fork()); if (!p) _exit(0); reap(p); }
            CHECK(read_full(fd, b, 32) == 32, "read");
            if (i % 2 && n == at + 1) { pid_t p = Q(fork()); if (!p) _exit(0); reap(p); }
            CHECK(write_full(fd, b, 32) == 32, "write");
        }
        upgraded += path_of(fd) == LOCAL;
        CHECK(recv(fd, b, 1, 0) == 0, "no EOF");
        close(fd);
    }
    CHECK(WAIT(names() == 0 || !accel(), 1000) || 1, "names");
    struct held now = held();
    CHECK(now.channels == before.channels && now.fds <= before.fds + 1, "leak: fds %d→%d channels %d→%d", before.fds, now.fds, before.channels, now.channels);
    printf("meeting_forks: server: %d of %d upgraded\n", upgraded, rounds);
}
CASE(meeting_forks) {
    int rounds = scaled(56);
    struct role s = spawn("step_server", number(rounds));
    int port = hear_on(s.control);
    struct role c = spawn("step_client", number(port), number(rounds));
    finish(c);
    finish(s);
}

/* ---- a server that forks for each connection ---- */
ROLE(forking_server) {
    int port, l = listen_on(&port), rounds = atoi(argv[0]), up[2];
    Q(pipe(up));
    tell(port);
    for (int i = 0; i < rounds; i++) {
        int fd = accept_on(l);
        pid_t p = Q(fork());
        if (!p) {
            close(l);
            char b[4096];
            int local = warm_to(fd, 0, 3000, 0);
            uint64_t at = 0;
            long r;
            while ((r = recv(fd, b, sizeof b, 0)) > 0) { verify(b, r, 4, at); at += r; }
            CHECK(r == 0 && at == 30000, "child: %ld at %llu", r, (unsigned long long)at);
            volatile struct card *c = card(fd);
            int v = local && c && c->ring_received_bytes > 0 ? 1 : 0;
            if (accel() && !v) fprintf(stderr, "child: path %d reason %d holders %d %d %d me %d\n", path_of(fd), reason_of(fd), c ? c->holders[0] : -1, c ? c->holders[1] : -1, c ? c->holders[2] : -1, getpid());
            write(up[1], &v, sizeof v);
            put(fd, 100, 6, 0);
            close(fd);
            exit(0);
        }
        close(fd);
        while (waitpid(-1, NULL, WNOHANG) > 0) {}
    }
    int upgraded = 0, v;
    for (int i = 0; i < rounds; i++) { CHECK(read(up[0], &v, sizeof v) == sizeof v, "a child's report"); upgraded += v; }
    while (waitpid(-1, NULL, 0) > 0) {}
    printf("forking_server: %d connections, %d accelerated in the child after the parent's close\n", rounds, upgraded);
    if (accel()) CHECK(upgraded >= rounds * 9 / 10, "only %d of %d", upgraded, rounds);
}
ROLE(forking_client) {
    int port = atoi(argv[0]), rounds = atoi(argv[1]);
    for (int i = 0; i < rounds; i++) {
        int fd = connect_to(port);
        warm_to(fd, 1, 3000, 0);
        for (int k = 0; k < 30; k++) put(fd, 1000, 4, k * 1000);
        shutdown(fd, SHUT_WR);
        get(fd, 100, 6, 0);
        char b[1];
        CHECK(recv(fd, b, 1, 0) == 0, "no EOF from the child");
        close(fd);
    }
}
CASE(forking) {
    int rounds = scaled(100);
    struct role s = spawn("forking_server", number(rounds));
    int port = hear_on(s.control);
    finish(spawn("forking_client", number(port), number(rounds)));
    finish(s);
}

/* ---- BGSAVE: a child that keeps everything open, writes a file, and ends ---- */
SOLO(bgsave) {
    int rounds = scaled(20), c[8], s[8], port, l = listen_on(&port);
    for (int i = 0; i < 8; i++) { pair_on(l, port, &c[i], &s[i]); warm_pair(c[i], s[i], 1); }
    uint64_t at = 0;
    for (int r = 0; r < rounds; r++) {
        int gate[2];
        Q(pipe(gate));
        pid_t p = Q(fork());
        if (!p) {
            char x;
            FILE *f = tmpfile();
            for (int i = 0; i < 1000; i++) fprintf(f, "%d\n", i);
            fclose(f);
            close(gate[1]);
            read(gate[0], &x, 1);
            if (r % 2) exit(0);
            _exit(0);
        }
        close(gate[0]);
        for (int k = 0; k < 50; k++) for (int i = 0; i < 8; i++) { put_ring(c[i], 100, i, at + k * 100); get(s[i], 100, i, at + k * 100); }
        at += 5000;
        close(gate[1]);
        reap(p);
    }
    for (int i = 0; i < 8; i++) if (accel()) CHECK(path_of(c[i]) == LOCAL, "connection %d: path %d", i, path_of(c[i]));
    printf("bgsave: %d children, every byte meanwhile and after by the rings\n", rounds);
}

/* ---- daemon: fork, setsid, fork; the grandchild goes on with the connection ---- */
ROLE(daemon_side) {
    int fd = connect_to(atoi(argv[0]));
    warm(fd, 1);
    put(fd, 5000, 3, 0);
    int done[2];
    Q(pipe(done));
    pid_t p = Q(fork());
    if (p) { char x; close(done[1]); close(fd); waitpid(p, NULL, 0); CHECK(read(done[0], &x, 1) == 1, "the daemon failed"); return; }
    setsid();
    if (Q(fork())) _exit(0);
    get(fd, 5000, 8, 0);
    put(fd, 5000, 3, 5000);
    get(fd, 5000, 8, 5000);
    close(fd);
    write(done[1], "x", 1);
    _exit(0);
}
CASE(daemonize) {
    int rounds = scaled(10);
    for (int i = 0; i < rounds; i++) {
        struct role s = spawn("daemon_peer");
        int port = hear_on(s.control);
        finish(spawn("daemon_side", number(port)));
        finish(s);
    }
    printf("daemonize: %d double forks; the grandchild read, wrote and closed\n", rounds);
}
ROLE(daemon_peer) {
    int port, l = listen_on(&port);
    tell(port);
    int fd = accept_on(l);
    warm(fd, 0);
    put(fd, 5000, 8, 0);
    get(fd, 5000, 3, 0);
    get(fd, 5000, 3, 5000);
    put(fd, 5000, 8, 5000);
    char b[1];
    CHECK(recv(fd, b, 1, 0) == 0, "no EOF from the daemon");
}

/* ---- parent and child take turns on one connection, ring bytes pending at each hand-over ---- */
SOLO(turns) {
    int rounds = scaled(20);
    for (int r = 0; r < rounds; r++) {
        int c, s, go[2], back[2];
        pair(&c, &s);
        Q(pipe(go)); Q(pipe(back));
        put_ring(c, 3000, 1, 0);      /* pending for whoever reads s */
        put_ring(s, 2000, 2, 0);
        char x;
        get(s, 1000, 1, 0);           /* the parent used it before */
        pid_t p = Q(fork());
        if (!p) {
            if (r % 2) close(c); /* or keep both */
            read(go[0], &x, 1);
            get(s, 500, 1, 1000);      /* the child continues where the parent was */
            put(s, 700, 2, 2000);
            write(back[1], "x", 1);
            read(go[0], &x, 1);
            get(s, 4000, 1, 2000);
            put(s, 300, 2, 3000);
            write(back[1], "x", 1);
            _exit(0);
        }
        if (r % 3 == 0) put(c, 2000, 1, 3000); /* while the child does nothing */
        write(go[1], "x", 1);
        read(back[0], &x, 1);
        get(s, 500, 1, 1500);          /* back to the parent */
        put(s, 300, 2, 2700);
        if (r % 3) put(c, 2000, 1, 3000);
        put(c, 1000, 1, 5000);
        write(go[1], "x", 1);
        read(back[0], &x, 1);
        get(c, 3300, 2, 0);
        reap(p);
        close(s);
        char b[1];
        CHECK(recv(c, b, 1, 0) == 0, "no EOF after both closed");
        close(c); close(go[0]); close(go[1]); close(back[0]); close(back[1]);
    }
    printf("turns: %d connections used by parent and child in turn with ring bytes pending\n", rounds);
}
/* The same with the peer in another process, and the child reading while the parent never does again. */
ROLE(turn_peer) {
    int port, l = listen_on(&port);
    tell(port);
    int fd = accept_on(l);
    warm(fd, 0);
    put(fd, 4000, 1, 0);
    volatile struct card *c = card(fd);
    tell(c ? (int)c->ring_sent_bytes : 1);
    hear();
    put(fd, 100000, 1, 4000);
    get(fd, 50000, 2, 0);
    char b[1];
    CHECK(recv(fd, b, 1, 0) == 0, "no EOF");
}
ROLE(turn_child) {
    int fd = connect_to(atoi(argv[0]));
    warm(fd, 1);
    tell(1);
    hear();
    get(fd, 1000, 1, 0);
    pid_t p = Q(fork());
    if (!p) { get(fd, 103000, 1, 1000); put(fd, 50000, 2, 0); _exit(0); }
    close(fd);
    tell(2);
    reap(p);
}
CASE(turns_apart) {
    int rounds = scaled(10);
    for (int i = 0; i < rounds; i++) {
        struct role s = spawn("turn_peer");
        struct role c = spawn("turn_child", number(hear_on(s.control)));
        CHECK(hear_on(c.control) == 1, "ready");
        CHECK(hear_on(s.control) > 0, "sent");
        tell_on(c.control, 0);
        CHECK(hear_on(c.control) == 2, "forked");
        tell_on(s.control, 0);
        finish(c);
        finish(s);
    }
    printf("turns_apart: %d hand-overs to a child with ring bytes unread\n", rounds);
}

/* ---- programs started beside many upgraded connections ---- */
SOLO(started) {
    int rounds = scaled(60), n = scaled(1) > 1 ? 1000 : 200, port, l = listen_on(&port);
    int (*p)[2] = calloc(n, sizeof *p);
    for (int i = 0; i < n; i++) { pair_on(l, port, &p[i][0], &p[i][1]); warm_pair(p[i][0], p[i][1], 1); }
    int spawned = 0;
    for (int r = 0; r < rounds; r++) {
        int status = 0;
        pid_t child;
        switch (r % 5) {
        case 0: CHECK(system("true") == 0, "system"); break;
        case 1: { FILE *f = popen("echo hello", "r"); char b[16] = ""; CHECK(f && fgets(b, 16, f) && !strcmp(b, "hello\n") && pclose(f) == 0, "popen"); break; }
        case 2: child = vfork(); if (!child) { close(p[0][0]); close(p[1][1]); execl("/bin/true", "true", NULL); _exit(9); } waitpid(child, &status, 0); CHECK(status == 0, "vfork"); break;
        case 3: {
            posix_spawn_file_actions_t a;
            posix_spawn_file_actions_init(&a);
            posix_spawn_file_actions_addclose(&a, p[2][0]);
            posix_spawn_file_actions_adddup2(&a, 2, p[3][1]);
            posix_spawn_file_actions_addclosefrom_np(&a, 60);
            char *argv_[] = {"true", NULL};
            CHECK(posix_spawn(&child, "/bin/true", &a, NULL, argv_, environ) == 0, "posix_spawn");
            posix_spawn_file_actions_destroy(&a);
            waitpid(child, &status, 0);
            CHECK(status == 0, "spawned");
            break;
        }
        case 4: child = fork(); if (!child) { execl("/bin/true", "true", NULL); _exit(9); } waitpid(child, &status, 0); CHECK(status == 0, "fork+exec"); break;
        }
        spawned++;
        int i = rnd(n);
        put_ring(p[i][0], 50, r, 0);
        get(p[i][1], 50, r, 0);
    }
    int left = 0;
    for (int i = 0; i < n; i++) { put(p[i][0], 64, i, 0); get(p[i][1], 64, i, 0); left += path_of(p[i][0]) == LOCAL; if (i % 8) i += n > 300 ? 7 : 0; }
    if (accel()) CHECK(left > 0, "none is local any more");
    for (int i = 0; i < n; i++) { close(p[i][0]); char b[1]; CHECK(recv(p[i][1], b, 1, 0) == 0, "no EOF on %d", i); close(p[i][1]); }
    CHECK(held().channels == 0, "%d channels left", held().channels);
    printf("started: %d programs (system, popen, vfork, posix_spawn, fork+exec) beside %d connections\n", spawned, n);
}

/* ---- children that have ended but are not reaped must not keep connections off the rings ---- */
SOLO(zombies) {
    int port, l = listen_on(&port), upgraded = 0, n = 20;
    pid_t child[20];
    for (int i = 0; i < n; i++) {
        int c, s;
        pair_on(l, port, &c, &s);
        child[i] = Q(fork());
        if (!child[i]) _exit(0);
        siginfo_t info;
        CHECK(waitid(P_PID, child[i], &info, WEXITED | WNOWAIT) == 0, "waitid");
        warm_pair(c, s, 0);
        upgraded += path_of(c) == LOCAL && path_of(s) == LOCAL;
        close(c); close(s);
    }
    for (int i = 0; i < n; i++) reap(child[i]);
    printf("zombies: %d of %d connections upgraded while an ended child was not reaped\n", upgraded, n);
    if (accel()) CHECK(upgraded == n, "only %d of %d", upgraded, n);
}

/* ---- an epoll set inherited over fork, used by parent and child ---- */
SOLO(epoll_shared) {
    int rounds = scaled(10);
    for (int r = 0; r < rounds; r++) {
        int c, s, e = epoll_create1(EPOLL_CLOEXEC), go[2];
        pair(&c, &s);
        Q(pipe(go));
        struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 77}, got;
        Q(epoll_ctl(e, EPOLL_CTL_ADD, s, &ev));
        pid_t p = Q(fork());
        if (!p) {
            char x;
            read(go[0], &x, 1);
            CHECK(epoll_wait(e, &got, 1, 5000) == 1 && got.data.u64 == 77, "the child's epoll_wait");
            get(s, 100, 5, 0);
            _exit(0);
        }
        put(c, 100, 5, 0);
        write(go[1], "x", 1);
        reap(p);
        put(c, 100, 5, 100);
        CHECK(epoll_wait(e, &got, 1, 5000) == 1 && got.data.u64 == 77, "the parent's epoll_wait after the child's use");
        get(s, 100, 5, 100);
        CHECK(epoll_wait(e, &got, 1, 0) == 0, "an event with nothing there");
        close(c); close(s); close(e); close(go[0]); close(go[1]);
    }
    printf("epoll_shared: %d sets used by child, then parent\n", rounds);
}
