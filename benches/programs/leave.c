/* leave COMMAND...: as PID 1, the least that leaves last: on SIGTERM ask everybody, wait until nobody is left. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words)
{
    sigset_t term;
    int got;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    if (fork() == 0) {
        sigprocmask(SIG_UNBLOCK, &term, NULL);
        execv(words[count > 1], words + 1);
        _exit(127);
    }
    sigwait(&term, &got);
    kill(-1, SIGTERM);
    while (wait(NULL) != -1)
        ;
    return 0;
}
