# Exit codes of `status`, and small helpers, for service scripts written in sh.
#
#     . "$KOI_SHARE/koi-service.sh"      or by its full path; `koi local` prints where it is
#
# Every script: 0 is success, all else a failure. `status` may also say what it found, and Koi puts right what differs.

KOI_OK=0          # as it should be
KOI_ERROR=1       # failed
KOI_MASTER=90     # running and promoted
KOI_BACKUP=91     # running, not promoted
KOI_SLAVE=91      # the same by its older name
KOI_STOPPED=92    # not running
KOI_LIVE=93       # running, but not ready to be promoted
