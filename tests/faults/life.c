/* A process that changes: destructors that use sockets as it ends, other users, other roots, a cgroup's limits. */
#include "cgroup.h"
#include <dlfcn.h>
#include <grp.h>
#include <libgen.h>
#include <linux/capability.h>

/* ---- destructors and handlers that send and receive ---- */
enum { OF_KEY, OF_THREAD_LOCAL, OF_ATEXIT, OF_QUICK_EXIT, OF_PROGRAM, OF_DLCLOSE, OF_LIBRARY_AT_EXIT, PLACES };
static const char *const places[PLACES] = {"pthread_key", "thread_local", "atexit", "at_quick_exit", "a destructor of the program", "dlclose", "a library's destructor at exit"};
extern int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
extern void *__dso_handle;
static int late_fd = -1, fini_fd = -1, unread;
static uint64_t said;
/* 100 bytes there and back; before that, what lay unread. */
static void converse(int fd) {
    get(fd, unread, 1, 0);
    unread = 0;
    put(fd, 100, 2, said);
    get(fd, 100, 2, said);
    said += 100;
}
static void at_end_of_thread(void *fd) { converse(*(int *)fd); }
static void at_end(void) { converse(late_fd); }
__attribute__((destructor)) static void at_fini(void) { if (fini_fd >= 0) converse(fini_fd); }
static pthread_key_t key;
static void *by_key(void *fd) { pthread_setspecific(key, fd); return NULL; }
static void *by_thread_local(void *fd) { __cxa_thread_atexit_impl(at_end_of_thread, fd, &__dso_handle); return NULL; }
static void *plugin(int fd) {
    char path[600], words[100];
    snprintf(path, sizeof path, "%.500s/plugin.so", dirname(strdup(program)));
    void *handle = dlopen(path, RTLD_NOW);
    CHECK(handle, "%s", dlerror());
    void (*use)(int, const char *, long) = (void (*)(int, const char *, long))dlsym(handle, "plugin_use");
    fill(words, 100, 2, said);
    use(fd, words, unread);
    unread = 0;
    said += 100;
    return handle;
}
ROLE(ender) { /* PORT PLACE UNREAD */
    int place = atoi(argv[1]), fd = connect_to(atoi(argv[0]));
    pthread_t t;
    unread = atoi(argv[2]);
    warm(fd, 1);
    tell(1);
    hear();                     /* the unread bytes are there */
    late_fd = fd;
    switch (place) {
    case OF_KEY: Q(pthread_key_create(&key, at_end_of_thread)); pthread_create(&t, NULL, by_key, &fd); pthread_join(t, NULL); converse(fd); break;
    case OF_THREAD_LOCAL: pthread_create(&t, NULL, by_thread_local, &fd); pthread_join(t, NULL); converse(fd); break;
    case OF_ATEXIT: atexit(at_end); break;
    case OF_QUICK_EXIT: at_quick_exit(at_end); quick_exit(0);
    case OF_PROGRAM: fini_fd = fd; break;
    case OF_DLCLOSE: CHECK(dlclose(plugin(fd)) == 0, "dlclose"); converse(fd); break;
    case OF_LIBRARY_AT_EXIT: plugin(fd); break;
    }
    if (place == OF_KEY || place == OF_THREAD_LOCAL || place == OF_DLCLOSE) if (accel()) CHECK(path_of(fd) == LOCAL, "path %d after %s", path_of(fd), places[place]);
}
ROLE(enders_peer) { /* PLACE UNREAD */
    int port, l = listen_on(&port), place = atoi(argv[0]), n = atoi(argv[1]);
    tell(port);
    int fd = accept_on(l);
    warm(fd, 0);
    put(fd, n, 1, 0);
    tell(1);
    char b[100];
    long r, at = 0;
    while ((r = read_full(fd, b, 100)) == 100) { verify(b, 100, 2, at); at += 100; CHECK(write_full(fd, b, 100) == 100, "the answer"); }
    CHECK(r == 0, "after %ld bytes of %s the stream ended with %ld", at, places[place], r);
    long expected = place == OF_KEY || place == OF_THREAD_LOCAL || place == OF_DLCLOSE ? 200 : 100;
    CHECK(at == expected, "%ld bytes of %s", at, places[place]);
}
ROLE(late_loader) { /* the library comes by dlopen, without interposing anything, and is closed again */
    void *handle = dlopen(getenv("FAULTS_LIB"), RTLD_NOW);
    CHECK(handle, "%s", dlerror());
    CHECK(dlclose(handle) == 0, "dlclose");
    int c, s, port, l = listen_on(&port);
    pair_on(l, port, &c, &s);
    put(c, 100, 1, 0); get(s, 100, 1, 0);
    pid_t p = Q(fork());
    if (!p) _exit(0);
    reap(p);
}
CASE(destructors) {
    int rounds = scaled(1);
    for (int i = 0; i < rounds; i++) for (int place = 0; place < PLACES; place++) for (int n = 0; n <= 300; n += 300) {
        struct role p = spawn("enders_peer", number(place), number(n));
        struct role e = spawn("ender", number(hear_on(p.control)), number(place), number(n));
        CHECK(hear_on(e.control) == 1 && hear_on(p.control) == 1, "ready");
        tell_on(e.control, 0);
        finish(e);
        finish(p);
    }
    if (accel()) finish(spawn_with(0, "late_loader", NULL));
    printf("destructors: %d ends with sockets in use (keys, thread_local, atexit, quick_exit, destructors, dlclose)\n", rounds * PLACES * 2);
}

/* ---- another user, fewer rights, in mid-life ---- */
enum { TO_USER, TO_GROUP, NO_CAPABILITIES, NOT_DUMPABLE, CHANGES };
static const char *const changes[CHANGES] = {"setresuid", "setresgid", "capset", "PR_SET_DUMPABLE"};
static void change(int to) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {0};
    if (to == TO_USER) { Q(setgroups(0, NULL)); Q(setresgid(1234, 1234, 1234)); Q(setresuid(1234, 1234, 1234)); }
    if (to == TO_GROUP) Q(setresgid(1234, 1234, 1234));
    if (to == NO_CAPABILITIES) Q(syscall(SYS_capset, &head, none));
    if (to == NOT_DUMPABLE) Q(prctl(PR_SET_DUMPABLE, 0));
}
/* Both directions of a connection, turn by turn and at length, and whether it is in rings. */
static int exchange(int fd, int first, int most) {
    int local = warm_to(fd, first, most, 0);
    for (int i = 0; i < 200; i++) if (first) { put(fd, 20, 4, i * 20); get(fd, 20, 5, i * 20); } else { get(fd, 20, 4, i * 20); put(fd, 20, 5, i * 20); }
    if (first) { put(fd, 5000, 1, 0); get(fd, 5000, 2, 0); } else { get(fd, 5000, 1, 0); put(fd, 5000, 2, 0); }
    return local;
}
/* A connection whose two ends are here, made before the change: its bytes go by the ring whatever the machine does. */
static void still_by_ring(const int *pair) {
    if (spins_always()) put_ring(pair[0], 3000, 6, 0);
    else put(pair[0], 3000, 6, 0);
    get(pair[1], 3000, 6, 0);
    close(pair[0]); close(pair[1]);
}
ROLE(changing) { /* PORT TO */
    int port = atoi(argv[0]), to = atoi(argv[1]), own, l = listen_on(&own);
    int old = connect_to(port), unmet = connect_to(port), own_pair[2];
    pair(&own_pair[0], &own_pair[1]);
    warm(old, 1);
    volatile struct card *c = card(old);
    put(old, 1000, 3, 0);
    tell(1);
    hear();                     /* 1000 bytes lie unread here, too */
    change(to);
    get(old, 1000, 3, 0);
    exchange(old, 1, 20);
    if (accel()) CHECK(c->path == LOCAL, "after %s the old connection is on path %d", changes[to], c->path);
    still_by_ring(own_pair);
    /* made before: it may have met, or not; then one made after */
    exchange(unmet, 1, 200);
    int fresh = connect_to(port), wanted = accel() && to == TO_USER ? KERNEL : LOCAL;
    exchange(fresh, 1, 200);
    if (accel()) CHECK(path_of(fresh) == wanted, "after %s a new connection is on path %d, reason %d", changes[to], path_of(fresh), reason_of(fresh));
    /* an old listener serves the new user */
    int a, b;
    pair_on(l, own, &a, &b);
    warm_pair(a, b, 1);
    close(a); close(b); close(old); close(unmet); close(fresh);
    CHECK(held().channels == 0, "%d channels left", held().channels);
}
ROLE(changing_peer) {
    int port, l = listen_on(&port);
    char b[1];
    tell(port);
    int old = accept_on(l), unmet = accept_on(l);
    warm(old, 0);
    put(old, 1000, 3, 0);
    tell(1);
    get(old, 1000, 3, 0);
    exchange(old, 0, 20);
    exchange(unmet, 0, 200);
    int fresh = accept_on(l);
    exchange(fresh, 0, 200);
    CHECK(recv(old, b, 1, 0) == 0 && recv(unmet, b, 1, 0) == 0 && recv(fresh, b, 1, 0) == 0, "no EOF");
}
static void with_peer(const char *name, const char *peer, int how) {
    struct role p = spawn(peer);
    struct role c = spawn(name, number(hear_on(p.control)), number(how));
    CHECK(hear_on(c.control) == 1 && hear_on(p.control) == 1, "ready, way %d", how);
    tell_on(c.control, 0);
    finish(c);
    finish(p);
}
CASE(other_rights) {
    if (geteuid()) { printf("SKIP other_rights: needs root\n"); return; }
    for (int to = 0; to < CHANGES; to++) with_peer("changing", "changing_peer", to);
    printf("other_rights: %d changes (setresuid, setresgid, capset, PR_SET_DUMPABLE) with connections in rings, half met, and new\n", CHANGES);
}

/* ---- another root ---- */
static void bare_root(int pivot) {
    static const char dir[] = "/tmp";
    Q(unshare(CLONE_NEWNS));
    Q(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    Q(mount("none", dir, "tmpfs", 0, NULL));
    Q(chdir(dir));
    if (pivot) { Q(syscall(SYS_pivot_root, ".", ".")); Q(umount2(".", MNT_DETACH)); Q(chdir("/")); }
    else Q(chroot("."));
    CHECK(access("/proc/self", F_OK) < 0 && access("/dev", F_OK) < 0, "the new root is not bare");
}
ROLE(moving) { /* PORT PIVOT */
    int port = atoi(argv[0]), old = connect_to(port), own_pair[2];
    pair(&own_pair[0], &own_pair[1]);
    warm(old, 1);
    put(old, 1000, 3, 0);
    tell(1);
    hear();
    bare_root(atoi(argv[1]));
    volatile struct card *c = card(old);
    get(old, 1000, 3, 0);
    exchange(old, 1, 20);
    still_by_ring(own_pair);
    int fresh = connect_to(port);
    int local = exchange(fresh, 1, 4000);
    CHECK(local && (!accel() || path_of(old) == LOCAL), "in another root: path %d, a new connection: path %d reason %d", path_of(old), path_of(fresh), reason_of(fresh));
}
ROLE(moving_peer) {
    int port, l = listen_on(&port);
    tell(port);
    int old = accept_on(l);
    warm(old, 0);
    put(old, 1000, 3, 0);
    tell(1);
    get(old, 1000, 3, 0);
    exchange(old, 0, 20);
    exchange(accept_on(l), 0, 4000);
}
CASE(other_root) {
    pid_t p = Q(fork());
    if (!p) { int r = unshare(CLONE_NEWNS); _exit(r != 0); }
    int status;
    Q(waitpid(p, &status, 0));
    if (status) { printf("SKIP other_root: no mount namespace can be made here\n"); return; }
    for (int pivot = 0; pivot < 2; pivot++) with_peer("moving", "moving_peer", pivot);
    printf("other_root: chroot and pivot_root into an empty place with connections in rings, and new ones there\n");
}

/* ---- a cgroup that allows little memory ---- */
ROLE(little_memory) { /* CONNECTIONS BYTES: rings that would hold more than the cgroup allows */
    int n = atoi(argv[0]), port, l = listen_on(&port), upgraded = 0;
    long bytes = atol(argv[1]);
    int (*p)[2] = calloc(n, sizeof *p);
    for (int i = 0; i < n; i++) {
        pair_on(l, port, &p[i][0], &p[i][1]);
        warm_pair(p[i][0], p[i][1], 0);
        upgraded += path_of(p[i][0]) == LOCAL;
        put(p[i][0], bytes, 1, 0);
    }
    for (int i = 0; i < n; i++) { get(p[i][1], bytes, 1, 0); put(p[i][1], 100, 2, 0); get(p[i][0], 100, 2, 0); }
    tell(upgraded);
}
CASE(limit_cgroup) {
    static const char limit[] = "33554432";
    if (!make_group(limit)) { printf("SKIP limit_cgroup: no memory cgroup can be made here\n"); return; }
    write_text(group, "cgroup.procs", "0");
    struct role r = spawn("little_memory", "300", "200000");
    int upgraded = hear_on(r.control), status;
    Q(waitpid(r.pid, &status, 0));
    CHECK(write_text("/sys/fs/cgroup/memory", "cgroup.procs", "0") || write_text("/sys/fs/cgroup", "cgroup.procs", "0"), "out of the cgroup");
    WAIT(rmdir(group) == 0, 2000);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "ended with status %#x", status);
    if (accel()) CHECK(upgraded > 0 && upgraded < 300, "%d of 300 upgraded", upgraded);
    printf("limit_cgroup: 300 connections in a cgroup of %s bytes, %d upgraded\n", limit, upgraded);
}
