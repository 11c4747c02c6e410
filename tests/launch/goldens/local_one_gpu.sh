env CUDA_VISIBLE_DEVICES=0 python -m hallujax.cli train --config=configs/admd.py:mocap_rgbd,cross_subject '--workdir=/runs/a run'
