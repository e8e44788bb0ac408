#!/bin/bash
# The parts that reproducers are put together from. Each function follows a comment of its own
# and ends at a line "}"; a reproducer holds those that it calls, directly or not.

say() { printf '%s\n' "$*"; }

# Something is not as expected. From the step in question on that is the bug; before it, it
# means that the bug cannot be tried for.
wrong() {
    say "NOT AS EXPECTED: $*"
    if [[ -s qemu.stderr ]]; then
        say "QEMU wrote to its standard error:"
        while IFS= read -r line; do say "    $line"; done <qemu.stderr
    fi
    exit "$verdict"
}

# Stop QEMU, delete the images, and say how it ended.
finish() {
    local status=$?
    [[ -z $QEMU ]] || kill -KILL "$QEMU" 2>/dev/null
    wait
    cd / && rm -rf -- "$folder"
    ((status)) || status=$unsure
    case $status in
        0) say "RESULT: this QEMU behaves" ;;
        1) say "RESULT: the bug is there" ;;
        *) say "RESULT: it could not be tried" ;;
    esac
    exit "$status"
} 2>/dev/null

# Find QEMU's programs, make a folder for images, and start QEMU in it with QMP on its standard
# input and output.
start() {
    local beside=
    verdict=125 unsure=0 events=0 QEMU='' printed='' refusal='' server='' line=''
    declare -gA job_words=() alive=() progress=() gone=()
    : "${QEMU_PROG:=qemu-system-x86_64}"
    [[ $QEMU_PROG != */* ]] || beside=$(cd "${QEMU_PROG%/*}" && pwd)
    [[ -z $beside ]] || QEMU_PROG=$beside/${QEMU_PROG##*/}
    if [[ -z ${QEMU_IMG_PROG:-} ]]; then
        QEMU_IMG_PROG=qemu-img
        [[ ! -x $beside/qemu-img ]] || QEMU_IMG_PROG=$beside/qemu-img
    fi
    if [[ -z ${QEMU_IO_PROG:-} ]]; then
        QEMU_IO_PROG=qemu-io
        [[ ! -x $beside/qemu-io ]] || QEMU_IO_PROG=$beside/qemu-io
    fi
    for line in "$QEMU_PROG" "$QEMU_IMG_PROG" "$QEMU_IO_PROG"; do
        command -v "$line" >/dev/null || { say "$line is not to be found"; exit 125; }
    done
    folder=$(mktemp -d) || exit 125
    trap finish EXIT
    trap 'exit 125' HUP INT TERM
    trap '' PIPE
    cd "$folder" || exit 125
    say "$("$QEMU_PROG" --version 2>&1)"
    ulimit -c 0
    launch
}

# Start QEMU.
launch() {
    local options=(-machine none -nodefaults -display none -S -qmp stdio)
    [[ $QEMU_PROG != *qemu-storage-daemon* ]] ||
        options=(--chardev stdio,id=monitor --monitor chardev=monitor)
    coproc MONITOR { exec "$QEMU_PROG" "${options[@]}" 2>>qemu.stderr; }
    QEMU=$!
    exec {from_qemu}<&"${MONITOR[0]}" {to_qemu}>&"${MONITOR[1]}"
    hear
    ok qmp '{"execute": "qmp_capabilities"}'
}

# End QEMU by its command quit, or by signal $1, and start another one.
restart() {
    local status said=
    if [[ $1 == quit ]]; then
        say '-> {"execute": "quit"}'
        printf '%s\n' '{"execute": "quit"}' >&"$to_qemu"
    else
        say "kill -$1"
        kill -"$1" "$QEMU"
    fi
    while IFS= read -r -t "$patience" -u "$from_qemu" line; do say "<- $line"; done
    (($? <= 128)) || wrong "QEMU did not end in $patience seconds"
    wait "$QEMU"
    status=$?
    QEMU=
    [[ $1 == KILL ]] || ((status == 0)) || wrong "QEMU ended with exit status $status"
    while IFS= read -r line; do
        [[ $line == *": terminating on signal 15 from pid "* ]] || said+=$line$'\n'
    done <qemu.stderr
    printf '%s' "$said" >qemu.stderr
    exec {from_qemu}<&- {to_qemu}>&-
    alive=() progress=() gone=() server=
    launch
} 2>/dev/null

# The next line that QEMU writes, to $line.
hear() {
    IFS= read -r -t "$patience" -u "$from_qemu" line
    local status=$?
    line=${line%$'\r'}
    ((status)) || return 0
    ((status <= 128)) || wrong "QEMU was silent for $patience seconds"
    wait "$QEMU"
    status=$?
    QEMU=
    ((status <= 128)) || wrong "QEMU died of SIG$(kill -l "$status")"
    wrong "QEMU ended with exit status $status"
}

# Send a QMP command; its reply goes to $reply.
qmp() {
    local refused
    say "-> $1"
    printf '%s\n' "$1" >&"$to_qemu"
    while hear; do
        case $line in
            '{"return": '*) refused=0 ;;
            '{"error": '*) refused=1 ;;
            *) note; continue ;;
        esac
        say "<- $line"
        reply=$line
        return "$refused"
    done
} 2>/dev/null

# Take note of $line, which is an event, or what qemu-io printed.
note() {
    local id='' word
    say "<- $line"
    if [[ ! $line =~ '"event": "'([A-Z_]+)'"' ]]; then
        printed+=$line
        return
    fi
    ((++events <= 10000)) || wrong "QEMU sent more than 10000 events"
    word=${BASH_REMATCH[1]}
    [[ ! $line =~ '"'(id|device)'": "'([^\"]*)'"' ]] || id=${BASH_REMATCH[2]}
    [[ -n $id ]] || return 0
    case $word in
        BLOCK_EXPORT_DELETED) server=idle gone[$id]=yes; return ;;
        JOB_STATUS_CHANGE)
            [[ $line =~ '"status": "'([a-z]+)'"' ]] && word=${BASH_REMATCH[1]}
            alive[$id]=$word
            [[ $word != null ]] || unset "alive[$id]"
            ;;
        BLOCK_JOB_COMPLETED | BLOCK_JOB_CANCELLED)
            progress[$id]=$line
            word=${word#BLOCK_JOB_}
            [[ $line != *'"error": '* ]] || word=COMPLETED!
            ;;
        BLOCK_JOB_ERROR)
            [[ $line =~ '"operation": "'([a-z]+)'"' ]] && word="ERROR ${BASH_REMATCH[1]}"
            [[ $line =~ '"action": "'([a-z]+)'"' ]] && word+=" ${BASH_REMATCH[1]}"
            ;;
        BLOCK_JOB_*) word=${word#BLOCK_JOB_} ;;
    esac
    job_words[$id]+="$word "
}

# Send a line to the human monitor, which must answer $2 and no more; both as in JSON.
hmp() {
    qmp '{"execute": "human-monitor-command", "arguments": {"command-line": "'"$1"'"}}' &&
        [[ $reply == '{"return": "'"$2"'"}' ]]
}

# Run a program of QEMU's. What it writes goes to $reply.
run() {
    local pipe status
    say "\$ $*"
    reply=
    exec {pipe}< <("$@" 2>&1 </dev/null; printf '\n%d' $? 2>/dev/null)
    while :; do
        IFS= read -r -t "$patience" -u "$pipe" line
        status=$?
        ((status == 0)) || break
        [[ -n $line ]] || continue
        say "    $line"
        reply+=${reply:+$'\n'}$line
    done
    exec {pipe}<&-
    ((status <= 128)) || wrong "no end within $patience seconds"
    return "$line"
}

# qemu-img with these arguments.
img() { run "$QEMU_IMG_PROG" "$@"; }

# The ranges START-END of file $1 that it has of its own are those in $2, if qemu-img tells them:
# before 6.1 it does not.
check_allocated() {
    local own='' extent='"start": ([0-9]+), "length": ([0-9]+), "depth": 0, "present": true'
    img map --output=json "$1" || wrong "$reply"
    if [[ $reply == *'"data": '* && $reply != *'"present": '* ]]; then
        say "$QEMU_IMG_PROG does not tell what $1 has of its own"
        unsure=125
        return
    fi
    while IFS= read -r line; do
        [[ $line =~ $extent ]] || continue
        local from=${BASH_REMATCH[1]} to=$((BASH_REMATCH[1] + BASH_REMATCH[2]))
        if [[ $own == *"-$from" ]]; then own=${own%-*}; else own+=${own:+ }$from; fi
        own+=-$to
    done <<<"$reply"
    [[ $own == "$2" ]] || wrong "$1 has of its own: $own, expected: $2"
}

# qemu-io with these arguments.
io() { run "$QEMU_IO_PROG" "$@"; }

# One request of the guest: a client of the disk's NBD export sends it.
guest() {
    local mode=()
    [[ $2 != read* ]] || mode=(-r)
    io "${mode[@]}" -d unmap -f raw -c "$2" "nbd+unix:///$1?socket=nbd.sock"
}

# One request ($2) of the guest of disk $1, sent by the human monitor's qemu-io, which must
# print $3. A job's filter takes what the disk below it may not take from others.
guest_by_monitor() {
    send_by_monitor "$@" && return
    [[ $reply == *@('Permission conflict on node'|'Conflicts with use by')* && $2 != 'write -c'* ]] || return 1
    find_top "$1"
    send_by_monitor "$top" "$2" "$3"
}

# The same, sent to exactly this node.
send_by_monitor() {
    printed=
    hmp "qemu-io $1 \\\"$2\\\"" '' || return 1
    [[ $printed == *"$3"* && $printed != *' failed'* ]] && return
    reply=$printed
    return 1
}

# Give disk $1 an NBD export, or the filter of a job on top of it; $2: whether guests may write,
# unless a job has left the disk read-only.
export_disk() {
    add_export "$1" "$@" && return
    [[ $reply != 'Cannot export read-only node'* ]] || { add_export "$1" "$1" false; return; }
    [[ $reply == *@('Permission conflict on node'|'Conflicts with use by')* ]] || return 1
    find_top "$1"
    add_export "$top" "$@"
}

# The NBD export $2 of node $1.
add_export() {
    qmp '{"execute": "block-export-add", "arguments": {"type": "nbd", "id": "'"$2"'", "name": "'"$2"'", "node-name": "'"$1"'", "writable": '"$3"'}}'
}

# The filter on top of node $1, or that node itself: to $top.
find_top() {
    local rest object id=0 parent
    local -A names=() above=()
    qmp '{"execute": "x-debug-query-block-graph"}' || return
    rest=$reply top=$1
    while [[ $rest =~ \{[^{}]*\} ]]; do
        object=${BASH_REMATCH[0]}
        rest=${rest#*"$object"}
        if [[ $object == *'"type": "block-driver"'* ]]; then
            [[ $object =~ '"id": '([0-9]+) ]] && parent=${BASH_REMATCH[1]}
            [[ $object =~ '"name": "'([^\"]*) ]] && names[$parent]=${BASH_REMATCH[1]}
            [[ ${names[$parent]} != "$1" ]] || id=$parent
        elif [[ $object == *'"name": "file"'* && $object =~ '"parent": '([0-9]+) ]]; then
            parent=${BASH_REMATCH[1]}
            [[ $object =~ '"child": '([0-9]+) ]] && above[${BASH_REMATCH[1]}]=$parent
        fi
    done
    while parent=${above[$id]:-} && [[ -n ${names[${parent:-none}]:-} ]]; do
        id=$parent top=${names[$parent]}
    done
}

# Take a disk's NBD export away.
unexport() {
    server=busy
    qmp "$1" || return 1
    while [[ $server != idle ]]; do hear; note; done
}

# Wait until export $1 is deleted.
export_gone() {
    until [[ -n ${gone[$1]:-} ]]; do hear; note; done
    unset "gone[$1]"
}

# Wait until job $1 has come to status $2, in this step after event $3 if it is given, or to its
# end.
job_rests() {
    until [[ ${alive[$1]:-null} == @(concluded|null) ||
        (${alive[$1]} == "$2" && ${job_words[$1]:-} == *"${3:-}"*) ]]; do
        hear
        note
    done
}

# Wait until job $1 has copied something and no job has anything in hand, or $1 runs no more.
job_copies() {
    local until=$((SECONDS + ${patience%.*} + 1)) copied left
    while [[ ${alive[$1]:-null} == @(created|running|paused) ]]; do
        ok qmp '{"execute": "query-jobs"}'
        count_progress "$1"
        ok qmp '{"execute": "query-named-block-nodes", "arguments": {"flat": true}}'
        count_nameless
        ((copied == 0 || left != 0)) || return 0
        ((SECONDS < until)) || wrong "job $1 does not rest within $patience seconds"
    done
}

# Wait, but not for long, until job $1 has copied $2 bytes and no job has anything left.
job_follows() {
    local until=$((SECONDS + 3)) copied left
    until
        ok qmp '{"execute": "query-jobs"}'
        count_progress "$1"
        ((copied == $2 && left == 0 || SECONDS > until))
    do :; done
}

# What job $1 has copied, to $copied, and what all jobs have not, to $left; from the last reply.
count_progress() {
    local rest=$reply job total now
    copied=0 left=0
    while [[ $rest =~ (\{[^{}]*'"id": '[^{}]*\})(.*) ]]; do
        job=${BASH_REMATCH[1]} rest=${BASH_REMATCH[2]}
        [[ $job != *'"status": "'@(concluded|aborting)'"'* ]] || continue
        [[ $job =~ '"current-progress": '([0-9]+) ]] && now=${BASH_REMATCH[1]}
        [[ $job =~ '"total-progress": '([0-9]+) ]] && total=${BASH_REMATCH[1]}
        ((left += total - now)) || true
        [[ $job != *'"id": "'"$1"'"'* ]] || copied=$now
    done
}

# Subtract from $left what the copy bitmaps of the disks hold, from the last reply.
count_nameless() {
    local disk node rest bitmap
    for disk in drive0 drive1 drive2; do
        [[ $reply == *'"node-name": "'"$disk"'"'* ]] || continue
        pick_node "$disk"
        rest=${node#*'"dirty-bitmaps": ['}
        while [[ $rest =~ ^[^{]*(\{[^\}]*\})(.*) ]]; do
            rest=${BASH_REMATCH[2]} bitmap=${BASH_REMATCH[1]}
            [[ $bitmap == *'"recording": false'* && $bitmap != *'"name": '* ]] || continue
            [[ $bitmap =~ '"count": '([0-9]+) ]] && ((left -= BASH_REMATCH[1])) || true
        done
    done
}

# Cancel job $1 and dismiss it.
end_job() {
    [[ ${alive[$1]:-} == concluded ]] ||
        ok qmp '{"execute": "job-cancel", "arguments": {"id": "'"$1"'"}}'
    job_rests "$1" null
    [[ -z ${alive[$1]:-} ]] ||
        ok qmp '{"execute": "job-dismiss", "arguments": {"id": "'"$1"'"}}'
}

# Do something that must succeed.
ok() {
    "$@" || wrong "this must succeed"
}

# Do something that must be refused, with a reply in which the regular expression $1 is found.
refused() {
    local text=$1
    shift
    "$@" && wrong "this must be refused: $text"
    [[ $reply =~ $text ]] || wrong "this must be refused for another reason: $text"
}

# Do one of several things of which one must be refused, if none was yet.
try() {
    [[ -n $refusal ]] && return
    "$@" && ((++tried)) && return
    refusal=$reply
}

# One of what was tried must have been refused, with a reply like $1.
one_refused() {
    [[ -n $refusal ]] || wrong "one of these must be refused: $1"
    [[ $refusal =~ $1 ]] || wrong "this must be refused for another reason: $1"
    refusal=
}

# Undo what was tried as number $1, if it succeeded.
undo() {
    local number=$1
    shift
    ((tried < number)) || ok "$@"
}

# From here on a deviation is the bug.
in_question() {
    verdict=1
    job_words=()
}

# The last reply must hold $1.
has() {
    [[ $reply == *"$1"* ]] || wrong "expected $1"
}

# Of the nodes that the last reply lists, the one called $1: to $node.
pick_node() {
    local rest=${reply#*[} depth=0 piece
    node=
    while [[ $rest =~ ^([^{}]*)([{}])(.*) ]]; do
        piece=${BASH_REMATCH[1]}${BASH_REMATCH[2]} rest=${BASH_REMATCH[3]}
        node+=$piece
        if [[ $piece == *'{' ]]; then ((++depth)); else ((--depth)); fi
        ((depth)) && continue
        # Newer QEMUs also list the children of a node, by name.
        [[ ${node//'"node-name": "'"$1"'", "child"'/} == *'"node-name": "'"$1"'"'* ]] && return
        node=
    done
    wrong "there is no node $1"
}

# Of the bytes from $1 up to $2 exactly the ranges that follow are dirty: those that the last
# reply, a map of an exported bitmap, calls without data.
check_dirty() {
    local from=$1 to=$2 rest=$reply start end came=() last=
    shift 2
    while [[ $rest =~ '"start": '([0-9]+)', "length": '([0-9]+)([^\}]*)\}(.*) ]]; do
        start=${BASH_REMATCH[1]} end=$((BASH_REMATCH[1] + BASH_REMATCH[2])) rest=${BASH_REMATCH[4]}
        [[ ${BASH_REMATCH[3]} == *'"data": false'* ]] || continue
        ((start >= from)) || start=$from
        ((end <= to)) || end=$to
        ((start < end)) || continue
        if [[ ${last#*-} == "$start" ]]; then
            start=${last%-*}
            unset 'came[-1]'
        fi
        last=$start-$end
        came+=("$last")
    done
    [[ "${came[*]}" == "$*" ]] || wrong "expected as dirty: $*, not ${came[*]}"
}

# Node $1 has the size $2 (bytes), so many bitmaps with a name ($3), and so many without ($4).
check_node() {
    local rest='' node named=0 all=0
    pick_node "$1"
    [[ $node == *'"virtual-size": '"$2"[,}]* ]] || wrong "expected $1 with a size of $2 bytes"
    [[ $node != *'"dirty-bitmaps": ['* ]] || rest=${node#*'"dirty-bitmaps": ['}
    rest=${rest%%]*}
    node=$rest
    while [[ $rest == *'"granularity": '* ]]; do rest=${rest#*'"granularity": '}; ((++all)); done
    while [[ $node == *'"name": '* ]]; do node=${node#*'"name": '}; ((++named)); done
    ((named == $3)) || wrong "expected $3 bitmaps with a name on $1, not $named"
    ((all - named == $4)) || wrong "expected $4 bitmaps without a name on $1, not $((all - named))"
}

# Bitmap $2 of node $1 has all these fields.
check_bitmap() {
    local node rest where="$1, bitmap $2" name=$2
    pick_node "$1"
    shift 2
    rest=${node#*'"dirty-bitmaps": ['}
    while [[ $rest =~ ^[^{]*(\{[^\}]*\})(.*) ]]; do
        rest=${BASH_REMATCH[2]} node=${BASH_REMATCH[1]}
        [[ $node == *'"name": '"$name"[,}]* ]] || continue
        for name; do
            [[ $node == *"$name"[,}]* ]] || wrong "$where: expected $name, not $node"
        done
        return
    done
    wrong "expected $where"
}

# The events of job $1 follow one another like $2; its last numbers are those that follow.
check_job() {
    local name=$1 field
    [[ ${job_words[$name]:-} =~ ^$2$ ]] || wrong "job $1: expected $2, not ${job_words[$name]:-}"
    shift 2
    for field; do
        [[ ${progress[$name]:-} == *"$field"[,}]* ]] || wrong "job $name: expected $field"
    done
    unset "job_words[$name]"
}

# So many jobs ($1) are in the last reply.
check_jobs() {
    local rest=$reply number=0
    while [[ $rest == *'"id": '* ]]; do rest=${rest#*'"id": '}; ((++number)); done
    ((number == $1)) || wrong "expected $1 jobs, not $number"
}

# Job $1 of the last reply has all these fields.
check_job_now() {
    local name=$1 field
    [[ $reply =~ \{[^{}]*'"id": "'$name'"'[^{}]*\} ]] || wrong "expected a job $name"
    shift
    for field; do
        [[ ${BASH_REMATCH[0]} == *"$field"[,}]* ]] || wrong "job $name: expected $field"
    done
}

# There were no events but those already checked.
no_other_events() {
    ((!${#job_words[@]})) || wrong "events of ${!job_words[*]}: ${job_words[*]}"
}

# QEMU wrote nothing to its standard error.
check_silent() {
    [[ ! -s qemu.stderr ]] || wrong "QEMU must write nothing to its standard error"
}

# Stamped data, $3 bytes of it for byte $2 of a disk, into file $4: odd stamps ($1) are
# pseudo-random bytes (SplitMix64), even ones repeat eight of them through each sector.
stamp() {
    local seed=$(($1 * 0x9E3779B97F4A7C15)) skip=$(($2 % 8 * 4)) index x hex word
    for ((index = $2 / 8; index * 8 < $2 + $3; ++index)); do
        x=$(($1 % 2 ? index + seed : index / 64 + seed))
        x=$(((x ^ x >> 30 & 0x3ffffffff) * 0xBF58476D1CE4E5B9))
        x=$(((x ^ x >> 27 & 0x1fffffffff) * 0x94D049BB133111EB))
        printf -v hex %016x "$((x ^ x >> 31 & 0x1ffffffff))"
        word=\\x${hex:14:2}\\x${hex:12:2}\\x${hex:10:2}\\x${hex:8:2}
        word+=\\x${hex:6:2}\\x${hex:4:2}\\x${hex:2:2}\\x${hex:0:2}
        printf "${word:skip}"
        skip=0
    done >"$4"
}
