# What could be typed is asked of lastout itself: it knows its own options, and its init's jobs.
function __lastout
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] completions --for -- $words[2..] 2>/dev/null)
        switch $line
            case ':command *'
                set -l command $words[(math (string replace ':command ' '' -- $line) + 2)..]
                set -l last $command[-1]
                set -e command[-1]
                if set -q command[1]
                    set last (string escape -- $command) $last
                end
                complete -C (string join ' ' -- $last)
            case :files
                __fish_complete_path (string replace -r '^--[^=]*=' '' -- $words[-1])
            case :directories
                __fish_complete_directories (string replace -r '^--[^=]*=' '' -- $words[-1]) ''
            case :users
                __fish_complete_users
            case '*'
                echo $line
        end
    end
end
complete -c lastout -f -a '(__lastout)'
