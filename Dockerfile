# The node on ROS 2 Humble, as on the board: docker build -t repghost_ros . && docker run --rm --net host --shm-size 512m repghost_ros
FROM ros:humble-ros-base
SHELL ["/bin/bash", "-c"]
WORKDIR /ws
COPY . src/repghost_ros
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip \
    && rosdep update \
    && rosdep install --from-paths src --ignore-src -y --dependency-types exec --dependency-types build \
    && pip3 install --no-cache-dir onnxruntime rosbags mcap 'numpy<2' \
    && rm -rf /var/lib/apt/lists/*
RUN . /opt/ros/humble/setup.bash && colcon build --packages-select repghost_ros
ENV FASTRTPS_DEFAULT_PROFILES_FILE=/ws/install/repghost_ros/share/repghost_ros/config/fastdds_images.xml
RUN sed -i 's|^exec|source /ws/install/setup.bash --\nexec|' /ros_entrypoint.sh
CMD ["ros2", "launch", "repghost_ros", "classify.launch.py", "model:=demo"]
