/* What the inits have to do with:
 *   sleep               sleeps
 *   sleepers N          N processes that sleep; says "up"
 *   handler FILE        on SIGTERM writes the time (CLOCK_MONOTONIC, in ns) to FILE and ends
 *   handlers N FILE     N of them, each in a session of its own, and one that sleeps; says "up"
 *   saver FILE MS       FILE.up has its process id; on SIGTERM it takes MS to write FILE
 *   daemon FILE MS      a saver that has gone into the background, in FILE's directory, and one that sleeps; says "up"
 */
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static sigset_t term;

static void put(const char *path, int flags, long long number)
{
    char line[32];
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
    int length = snprintf(line, sizeof line, "%lld\n", number);
    if (fd == -1 || write(fd, line, length) != length)
        _exit(1);
    close(fd);
}

static void handler(const char *path)
{
    struct timespec now;
    int got;
    sigwait(&term, &got);
    clock_gettime(CLOCK_MONOTONIC, &now);
    put(path, O_APPEND, now.tv_sec * 1000000000LL + now.tv_nsec);
    _exit(0);
}

static void saver(const char *path, int ms)
{
    char up[PATH_MAX], now[PATH_MAX];
    struct timespec while_saving = {ms / 1000, ms % 1000 * 1000000L};
    int got;
    snprintf(up, sizeof up, "%s.up", path);
    snprintf(now, sizeof now, "%s.up.now", path);
    put(now, O_TRUNC, getpid());
    if (rename(now, up) == -1)
        _exit(1);
    sigwait(&term, &got);
    nanosleep(&while_saving, NULL);
    put(path, O_TRUNC, 1);
    _exit(0);
}

static void stay(void)
{
    sigprocmask(SIG_UNBLOCK, &term, NULL);
    puts("up");
    fflush(stdout);
    for (;;)
        pause();
}

int main(int count, char **words)
{
    const char *what = count > 1 ? words[1] : "";
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    if (strcmp(what, "sleep") == 0)
        for (;;)
            pause();
    sigprocmask(SIG_BLOCK, &term, NULL);
    if (strcmp(what, "handler") == 0 && count == 3)
        handler(words[2]);
    if (strcmp(what, "saver") == 0 && count == 4)
        saver(words[2], atoi(words[3]));
    if (strcmp(what, "daemon") == 0 && count == 4) {
        char path[PATH_MAX];
        pid_t between = fork();
        if (between == 0) {
            setsid();
            if (fork() == 0 && chdir(dirname(strcpy(path, words[2]))) == 0)
                saver(words[2], atoi(words[3]));
            _exit(0);
        }
        waitpid(between, NULL, 0);
        snprintf(path, sizeof path, "%s.up", words[2]);
        while (access(path, F_OK) == -1)
            usleep(1000);
        stay();
    }
    if ((strcmp(what, "handlers") == 0 && count == 4) || (strcmp(what, "sleepers") == 0 && count == 3)) {
        for (int left = atoi(words[2]); left > 0; left--) {
            pid_t child = fork();
            if (child == -1)
                return 1;
            if (child == 0 && count == 4) {
                setsid();
                handler(words[3]);
            }
            if (child == 0) {
                sigprocmask(SIG_UNBLOCK, &term, NULL);
                for (;;)
                    pause();
            }
        }
        stay();
    }
    return 2;
}
