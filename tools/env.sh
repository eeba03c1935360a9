# Source this for a shell in which the package and its ROS 2 run: . tools/env.sh [jazzy|kilted]
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
_venv=$_root/.venv
[ "${1:-jazzy}" = jazzy ] || _venv=$_root/.venv-$1
. "$_venv/bin/activate"
# A sourced ROS 2 brings its own paths.
if [ -z "${ROS_DISTRO:-}" ]; then
  export AMENT_PREFIX_PATH=$_venv
  # The graph stays on this machine unless the user says otherwise.
  export ROS_AUTOMATIC_DISCOVERY_RANGE=${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}
fi
# Without it Fast DDS loses images larger than 512 KB.
export FASTDDS_DEFAULT_PROFILES_FILE=${FASTDDS_DEFAULT_PROFILES_FILE:-${FASTRTPS_DEFAULT_PROFILES_FILE:-$_root/config/fastdds_images.xml}}
# The name up to Jazzy; from Kilted on every process warns of it.
case ${ROS_DISTRO:-${1:-jazzy}} in
humble | iron | jazzy) export FASTRTPS_DEFAULT_PROFILES_FILE=$FASTDDS_DEFAULT_PROFILES_FILE ;;
esac
unset _root _venv
