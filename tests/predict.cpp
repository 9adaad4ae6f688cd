// Runs an exported model without Python: predict MODEL.ts SAMPLES, where SAMPLES holds raw
// float32 samples, mono, at the model's sample rate. Prints one "label probability" a line.
#include <torch/script.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: predict MODEL.ts SAMPLES.f32\n";
    return 2;
  }
  torch::jit::Module model = torch::jit::load(argv[1]);
  torch::NoGradGuard no_grad;

  std::ifstream file(argv[2], std::ios::binary);
  std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
  int64_t n_samples = bytes.size() / sizeof(float);
  torch::Tensor waveform = torch::from_blob(bytes.data(), {1, n_samples}, torch::kFloat32);
  torch::Tensor lengths = torch::full({1}, n_samples, torch::kInt64);

  torch::Tensor answer = model.forward({waveform, lengths}).toTensor()[0];
  c10::List<c10::IValue> labels = model.attr("labels").toList();
  std::cout.precision(9);
  for (int64_t i = 0; i < answer.numel(); ++i) {
    std::cout << labels.get(i).toStringRef() << ' ' << answer[i].item<float>() << '\n';
  }
}
