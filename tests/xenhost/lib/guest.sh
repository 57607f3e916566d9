# shellcheck shell=bash
# Owns: what a --guest option means, and the xl configuration made from it.
# Invariants:
#   G1  a guest is named, typed, sized and placed by its option alone; nothing is filled in by dom0 later.
#   G2  every wrong field is refused here, by name, before anything boots.
# cmdline= is the last field because a kernel command line may hold commas.

GUEST_NAMES=()
GUEST_NODE_MEM=()
PVH_GUESTS=0
# The command line that every guest with our own load gets; a hang must not wait for a person.
readonly GUEST_CMDLINE="console=hvc0 quiet panic=1 oops=panic xen_blkfront.max_indirect_segments=32"

# guest_add SPEC ROOT: parses and writes ROOT/etc/xen/guests/NAME.cfg and copies its images into ROOT.
guest_add() {
    local spec=$1 root=$2 cmdline='' head field key value name type mem vcpus
    local node='' load=verifier kernel='' initrd='' disk='' maxmem=''
    head=$spec
    if [[ $spec == *,cmdline=* ]]; then
        cmdline=${spec#*,cmdline=}
        head=${spec%%,cmdline=*}
    fi
    local -a fields
    IFS=, read -r -a fields <<<"$head"
    ((${#fields[@]} >= 4)) || usage_error "--guest $spec: NAME,pv|pvh,MEM_MiB,VCPUS are needed"
    name=${fields[0]} type=${fields[1]} mem=${fields[2]} vcpus=${fields[3]}
    [[ $name =~ ^[A-Za-z][A-Za-z0-9_-]{0,30}$ ]] || usage_error "--guest $spec: bad name '$name'"
    [[ " ${GUEST_NAMES[*]} " != *" $name "* ]] || usage_error "--guest $spec: there is already a guest '$name'"
    [[ $type == pv || $type == pvh ]] || usage_error "--guest $spec: type is pv or pvh, not '$type'"
    is_count "$mem" && ((mem >= 4)) || usage_error "--guest $spec: memory '$mem' is not a number of MiB of 4 or more"
    is_count "$vcpus" && ((vcpus <= 64)) || usage_error "--guest $spec: '$vcpus' is not a number of vCPUs"
    for field in "${fields[@]:4}"; do
        [[ $field == *=* ]] || usage_error "--guest $spec: '$field' is not key=value"
        key=${field%%=*} value=${field#*=}
        case $key in
            node) is_index "$value" && ((value < ${#NODES[@]})) || usage_error "--guest $spec: no node '$value'"
                node=$value ;;
            load) [[ $value =~ ^(verifier|disk|none)$ ]] || usage_error "--guest $spec: load is verifier, disk or none, not '$value'"
                load=$value ;;
            kernel | initrd) [[ -r $value ]] || usage_error "--guest $spec: cannot read $key '$value'"
                printf -v "$key" %s "$value" ;;
            disk | maxmem) is_count "$value" || usage_error "--guest $spec: $key '$value' is not a number of MiB"
                printf -v "$key" %s "$value" ;;
            *) usage_error "--guest $spec: unknown key '$key'" ;;
        esac
    done
    [[ -n $kernel ]] || ((mem >= 64)) || usage_error "--guest $spec: the stock kernel needs 64 MiB or more, not $mem"
    [[ -z $maxmem ]] || ((maxmem >= mem)) || usage_error "--guest $spec: maxmem $maxmem is below memory $mem"
    [[ $load == disk && -z $disk ]] && disk=16
    if [[ -n $node ]]; then
        GUEST_NODE_MEM[node]=$((${GUEST_NODE_MEM[node]:-0} + mem))
        ((GUEST_NODE_MEM[node] < NODES[node])) ||
            usage_error "--guest $spec: the guests on node $node need ${GUEST_NODE_MEM[node]} MiB of ${NODES[node]}"
    fi
    GUEST_NAMES+=("$name")
    [[ $type != pvh ]] || PVH_GUESTS=$((PVH_GUESTS + 1))

    local kernel_path=/boot/stock-kernel initrd_path=/boot/stock-initrd config=$root/etc/xen/guests/$name.cfg
    mkdir -p "$root"/{etc/xen/guests,boot}
    if [[ -z $kernel ]]; then
        cp -L -- "$STOCK_KERNEL" "$root$kernel_path"
        cp -L -- "$STOCK_INITRD" "$root$initrd_path"
    else
        kernel_path=/boot/$name-kernel
        cp -L -- "$kernel" "$root$kernel_path"
        # A kernel of the user's own has an initrd only if he gives one.
        initrd_path=
    fi
    if [[ -n $initrd ]]; then
        initrd_path=/boot/$name-initrd
        cp -L -- "$initrd" "$root$initrd_path"
    fi
    [[ $load == none && -n $kernel ]] || cmdline="$GUEST_CMDLINE load=$load seed=$((SEED + ${#GUEST_NAMES[@]})) $cmdline"
    {
        echo "#xenhost node=$node"
        echo "#xenhost load=$load"
        echo "#xenhost disk=$disk"
        echo "#xenhost loop=$((${#GUEST_NAMES[@]} - 1))"
        echo "name = \"$name\""
        echo "type = \"$type\""
        echo "kernel = \"$kernel_path\""
        [[ -z $initrd_path ]] || echo "ramdisk = \"$initrd_path\""
        echo "cmdline = \"${cmdline//\"/\\\"}\""
        echo "memory = $mem"
        [[ -z $maxmem ]] || echo "maxmem = $maxmem"
        echo "vcpus = $vcpus"
        # Without it a PVH guest's clock is emulated through RDTSC exits, which TCG's SVM makes very slow.
        [[ $type == pv ]] || echo 'tsc_mode = "native"'
        [[ -z $disk ]] || echo "disk = [ \"phy:/dev/loop$((${#GUEST_NAMES[@]} - 1)),xvda,w\" ]"
        # A crashed guest stays, so that what it died of can be seen.
        echo 'on_poweroff = "destroy"'
        echo 'on_reboot = "destroy"'
        echo 'on_crash = "preserve"'
    } >"$config"
}
