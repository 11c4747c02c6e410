env CUDA_VISIBLE_DEVICES=0,2 python -m hallujax.cli train --config=configs/admd.py:mocap_rgbd,cross_subject '--workdir=/runs/a run' --coordinator 127.0.0.1:8476 --processes 2 --process 0
env CUDA_VISIBLE_DEVICES=1,3 python -m hallujax.cli train --config=configs/admd.py:mocap_rgbd,cross_subject '--workdir=/runs/a run' --coordinator 127.0.0.1:8476 --processes 2 --process 1
