/* What is started: nothing. */
int main(void) { return 0; }
