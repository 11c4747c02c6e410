git -C CHECKOUT archive --format=tar REVISION | docker build --tag=registry/hallujax:REVISION --file=launch/Dockerfile --build-arg=EXTRAS=video,gcs,tpu --build-arg=REVISION=REVISION -
docker push registry/hallujax:REVISION
gcloud container clusters get-credentials my-cluster --location=us-east5 --project=my-project
kubectl create --filename=- <<'END'
{
 "apiVersion": "jobset.x-k8s.io/v1alpha2",
 "kind": "JobSet",
 "metadata": {
  "name": "admd",
  "namespace": "default",
  "labels": {
   "kueue.x-k8s.io/queue-name": "multislice-queue"
  },
  "annotations": {
   "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
  }
 },
 "spec": {
  "failurePolicy": {
   "maxRestarts": 50,
   "rules": [
    {
     "name": "own",
     "action": "FailJobSet",
     "onJobFailureReasons": [
      "PodFailurePolicy"
     ]
    }
   ]
  },
  "ttlSecondsAfterFinished": 86400,
  "replicatedJobs": [
   {
    "name": "slice",
    "replicas": 1,
    "template": {
     "spec": {
      "parallelism": 4,
      "completions": 4,
      "completionMode": "Indexed",
      "backoffLimit": 0,
      "podFailurePolicy": {
       "rules": [
        {
         "action": "FailJob",
         "onExitCodes": {
          "containerName": "hallujax",
          "operator": "NotIn",
          "values": [
           42,
           134,
           135,
           137,
           139,
           143
          ]
         }
        }
       ]
      },
      "template": {
       "spec": {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 120,
        "hostNetwork": true,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "nodeSelector": {
         "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
         "cloud.google.com/gke-tpu-topology": "4x4"
        },
        "tolerations": [
         {
          "key": "google.com/tpu",
          "operator": "Exists",
          "effect": "NoSchedule"
         }
        ],
        "containers": [
         {
          "name": "hallujax",
          "image": "registry/hallujax:REVISION",
          "args": [
           "train",
           "--distributed",
           "--start-timeout=1800",
           "--config=configs/admd.py:mocap_rgbd,cross_subject",
           "--workdir=/runs/a run"
          ],
          "resources": {
           "limits": {
            "google.com/tpu": 4
           }
          },
          "securityContext": {
           "privileged": true,
           "runAsUser": 0
          },
          "volumeMounts": []
         }
        ],
        "volumes": []
       }
      }
     }
    }
   }
  ]
 }
}
END
kubectl logs --namespace=default --selector=jobset.sigs.k8s.io/jobset-name=admd --follow --prefix --ignore-errors --tail=-1 --max-log-requests=1000
kubectl get jobset admd --namespace=default --ignore-not-found '--output=jsonpath={.status.restarts}/{.status.terminalState}'
kubectl delete jobset admd --namespace=default --ignore-not-found
