// execl, execlp and execle with few and many arguments.
#include "check.h"

#define TEN "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"
#define HUNDRED TEN, TEN, TEN, TEN, TEN, TEN, TEN, TEN, TEN, TEN

static const char *self;

// The started program ends with 10 + the number of its arguments modulo 100, or 1 if they are not counted up.
static int counted(int argc, char **argv) {
    for (int i = 2; i < argc; i++)
        if (argv[i][0] != '0' + (i - 2) % 10 || argv[i][1])
            return 1;
    const char *mark = getenv("MARK");
    return 10 + (argc - 2) % 100 + (mark && strcmp(mark, "set") == 0 ? 100 : 0);
}

#define RUNS(expected, call)                                   \
    do {                                                       \
        pid_t pid = fork();                                    \
        if (pid == 0) {                                        \
            call;                                              \
            _exit(2);                                          \
        }                                                      \
        check(#call, WEXITSTATUS(status_of(pid)) == expected); \
    } while (0)

int main(int argc, char **argv) {
    char *marked[] = {"MARK=set", NULL};
    self = argv[0];
    if (argc > 1)
        return counted(argc, argv);
    RUNS(10, execl(self, self, "go", (char *)NULL));
    RUNS(11, execl(self, self, "go", "0", (char *)NULL));
    RUNS(12, execl(self, self, "go", "0", "1", (char *)NULL));
    RUNS(13, execl(self, self, "go", "0", "1", "2", (char *)NULL));
    RUNS(14, execl(self, self, "go", "0", "1", "2", "3", (char *)NULL));
    RUNS(15, execl(self, self, "go", "0", "1", "2", "3", "4", (char *)NULL));
    RUNS(20, execl(self, self, "go", TEN, (char *)NULL));
    RUNS(10, execl(self, self, "go", HUNDRED, HUNDRED, HUNDRED, (char *)NULL));
    RUNS(12, execlp(self, self, "go", "0", "1", (char *)NULL));
    RUNS(20, execlp(self, self, "go", TEN, (char *)NULL));
    RUNS(3, execlp("sh", "sh", "-c", "exit 3", (char *)NULL));
    RUNS(110, execle(self, self, "go", (char *)NULL, marked));
    RUNS(113, execle(self, self, "go", "0", "1", "2", (char *)NULL, marked));
    RUNS(114, execle(self, self, "go", "0", "1", "2", "3", (char *)NULL, marked));
    RUNS(120, execle(self, self, "go", TEN, (char *)NULL, marked));
    RUNS(110, execle(self, self, "go", HUNDRED, HUNDRED, HUNDRED, (char *)NULL, marked));
    errno = 0;
    check("a failed one returns", execl("/nonexistent", "x", (char *)NULL) == -1 && errno == ENOENT);
    return finish();
}
