package policies_test

import (
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// validPod mounts a class, and has a volume of another driver that says whatever it
// likes.
func validPod() *core.Pod {
	readOnly := true
	return &core.Pod{
		TypeMeta:   meta.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: meta.ObjectMeta{Name: "app", Namespace: "shop"},
		Spec: core.PodSpec{
			ServiceAccountName: "app",
			Containers:         []core.Container{{Name: "app", Image: "busybox:1.37", VolumeMounts: []core.VolumeMount{{Name: "secrets", MountPath: "/secrets"}}}},
			Volumes: []core.Volume{
				{Name: "secrets", VolumeSource: core.VolumeSource{CSI: &core.CSIVolumeSource{
					Driver: "secrets-store.csi.k8s.io", ReadOnly: &readOnly, VolumeAttributes: map[string]string{"secretProviderClass": "app"},
				}}},
				{Name: "other", VolumeSource: core.VolumeSource{CSI: &core.CSIVolumeSource{
					Driver: "other.example", VolumeAttributes: map[string]string{"store": "eu"},
				}}},
				{Name: "none", VolumeSource: core.VolumeSource{EmptyDir: &core.EmptyDirVolumeSource{}}},
			},
		},
	}
}

func denied(policy, want string, name string, change func(*core.Pod)) judgement {
	pod := validPod()
	change(pod)
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
	if err != nil {
		panic(err)
	}
	return judgement{name, podKind, &unstructured.Unstructured{Object: object}, policy, want}
}

// podCase changes the volume.
func podCase(name string, change func(*core.Volume)) judgement {
	return denied("", "", name, func(p *core.Pod) { change(&p.Spec.Volumes[0]) })
}

func podCases() []judgement {
	const (
		attributes = "keymount-volume-attributes"
		readOnly   = "keymount-read-only"
		move       = "; only secretProviderClass may stand there. Move the rest to parameters of the SecretProviderClass"
		add        = "; add readOnly: true beside driver"
	)
	no := false
	set := func(name, value string) func(*core.Pod) {
		return func(p *core.Pod) { p.Spec.Volumes[0].CSI.VolumeAttributes[name] = value }
	}
	again := func(p *core.Pod) {
		second := *p.Spec.Volumes[0].DeepCopy()
		second.Name = "more"
		p.Spec.Volumes = append(p.Spec.Volumes, second)
	}
	return []judgement{
		denied("", "", "valid", func(*core.Pod) {}),
		denied("", "", "no volumes", func(p *core.Pod) { p.Spec.Volumes, p.Spec.Containers[0].VolumeMounts = nil, nil }),
		denied("", "", "no attributes", func(p *core.Pod) { p.Spec.Volumes[0].CSI.VolumeAttributes = nil }),
		denied("", "", "exempt", func(p *core.Pod) {
			p.Namespace, p.Spec.ServiceAccountName = "kube-system", "default"
			set("store", "eu")(p)
			p.Spec.Volumes[0].CSI.ReadOnly = nil
		}),
		denied(attributes, `volume "secrets": csi.volumeAttributes has "store"`+move, "a store", set("store", "eu")),
		denied(attributes, `volume "secrets": csi.volumeAttributes has "objects"`+move, "objects", set("objects", "- path: a")),
		denied(attributes, `volume "secrets": csi.volumeAttributes has "csi.storage.k8s.io/serviceAccount.tokens"`+move, "tokens", set("csi.storage.k8s.io/serviceAccount.tokens", "{}")),
		denied(attributes, `volume "secrets": csi.volumeAttributes has "providerName"`+move, "a provider", set("providerName", "mock_provider")),
		denied(attributes, `volume "secrets": csi.volumeAttributes has "store"; volume "more": csi.volumeAttributes has "store"`+move, "two volumes", func(p *core.Pod) {
			set("store", "eu")(p)
			again(p)
		}),
		denied(readOnly, `volume "secrets": csi.readOnly is not true`+add, "readOnly is absent", func(p *core.Pod) { p.Spec.Volumes[0].CSI.ReadOnly = nil }),
		denied(readOnly, `volume "secrets": csi.readOnly is not true`+add, "readOnly is false", func(p *core.Pod) { p.Spec.Volumes[0].CSI.ReadOnly = &no }),
		denied(readOnly, `volume "secrets": csi.readOnly is not true; volume "more": csi.readOnly is not true`+add, "two are not read-only", func(p *core.Pod) {
			p.Spec.Volumes[0].CSI.ReadOnly = nil
			again(p)
		}),
	}
}
