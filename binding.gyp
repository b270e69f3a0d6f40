# For tools that only know node-gyp: hands the build over to cmake-js. Not part of the npm package.
{
  "targets": [
    {
      "target_name": "sluicebox",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake_js",
          "inputs": ["native/CMakeLists.txt"],
          "outputs": ["build/Release/sluicebox.node"],
          "action": ["node", "scripts/build.mjs", "release"],
        }
      ],
    }
  ]
}
