# What could be typed is asked of lastout itself: it knows its own options, and its init's jobs.
_lastout() {
    local i line words=() at=() last
    COMPREPLY=()
    for ((i = 1; i <= COMP_CWORD; i++)); do
        # Bash takes a word apart at each =.
        if ((i > 1)) && [[ ${COMP_WORDS[i]} == = || ${COMP_WORDS[i - 1]} == = ]]; then
            words[-1]+=${COMP_WORDS[i]}
        else
            words+=("${COMP_WORDS[i]}") at+=("$i")
        fi
    done
    last=${words[-1]}
    while IFS= read -r line; do
        case $line in
            :command*)
                i=${at[${line#:command }]}
                if declare -F _command_offset >/dev/null; then
                    _command_offset "$i"
                elif ((i == COMP_CWORD)); then
                    mapfile -t COMPREPLY < <(compgen -c -- "$last")
                else
                    compopt -o default
                fi
                ;;
            :files) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "${last#*=}") ;;
            :directories) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "${last#*=}") ;;
            :users) mapfile -t COMPREPLY < <(compgen -u -- "${last#*=}") ;;
            *)
                line=${line%%$'\t'*}
                [[ $line != *= ]] || compopt -o nospace
                [[ $last != *=* ]] || line=${line#"${last%%=*}="}
                COMPREPLY+=("$line")
                ;;
        esac
    done < <("$1" completions --for -- "${words[@]}" 2>/dev/null)
}
complete -F _lastout lastout
