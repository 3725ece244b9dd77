#compdef lastout
# What could be typed is asked of lastout itself: it knows its own options, and its init's jobs.
_lastout() {
    local line
    local -a found open before
    before=("${(@Q)words[2,CURRENT-1]}")
    for line in "${(@f)$("$words[1]" completions --for -- "${before[@]}" "${(Q)PREFIX}" 2>/dev/null)}"; do
        case $line in
            ('') ;;
            (:command*)
                local first=$((${line#:command } + 1))
                shift $first words
                ((CURRENT -= first))
                _normal
                return
                ;;
            (:files) [[ $PREFIX == --*=* ]] && compset -P '*='; _files ;;
            (:directories) [[ $PREFIX == --*=* ]] && compset -P '*='; _files -/ ;;
            (:users) [[ $PREFIX == --*=* ]] && compset -P '*='; _users ;;
            (*=$'\t'*) open+=("${${line//:/\\:}/$'\t'/:}") ;;
            (*) found+=("${${line//:/\\:}/$'\t'/:}") ;;
        esac
    done
    (($#open)) && _describe -t values value open -S ''
    (($#found)) && _describe -t values lastout found
}
if [[ $funcstack[1] == _lastout ]]; then
    _lastout "$@"
else
    compdef _lastout lastout
fi
