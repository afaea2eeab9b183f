# Exit codes of `status`, and small helpers, for service scripts written in sh.
#
#     . "$KOI_SHARE/koi-service.sh"      or by its full path; `koi local` prints where it is
#
# Every script: 0 is success, all else a failure. `status` may also say what it found, and Koi puts right what differs.

# shellcheck disable=SC2034 # whoever sources this file uses the names
{
KOI_OK=0          # as it should be
KOI_ERROR=1       # failed
KOI_MASTER=90     # running and promoted
KOI_BACKUP=91     # running, not promoted
KOI_SLAVE=91      # the same by its older name
KOI_STOPPED=92    # not running
KOI_LIVE=93       # running, but not ready to be promoted
}

# koi_pidfile_runs FILE: whether the process that the file names runs. A zombie does not.
koi_pidfile_runs() {
    koi_pid=$(cat "$1" 2>/dev/null) || return 1
    case $koi_pid in '' | *[!0-9]*) return 1 ;; esac
    kill -0 "$koi_pid" 2>/dev/null || return 1
    ! grep -q '^State:[[:space:]]*Z' "/proc/$koi_pid/status" 2>/dev/null
}

# koi_pidfile_stop FILE SECONDS: SIGTERM to the process that the file names, SIGKILL after so many seconds; returns once it has ended.
koi_pidfile_stop() {
    koi_pidfile_runs "$1" || return 0
    kill -TERM "$koi_pid" 2>/dev/null
    koi_left=$(($2 * 10))
    while koi_pidfile_runs "$1" && [ "$koi_left" -gt 0 ]; do
        sleep 0.1
        koi_left=$((koi_left - 1))
    done
    if koi_pidfile_runs "$1"; then
        echo "process $koi_pid did not end within $2 s and is killed"
        kill -KILL "$koi_pid"
        while koi_pidfile_runs "$1"; do sleep 0.1; done
    fi
    rm -f "$1"
}
